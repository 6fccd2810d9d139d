"""An equivariant critic, which takes an image and an action."""

from __future__ import annotations

import torch
from e2cnn import nn
from small_models import assert_exports
from test_published_networks import C4, regular, trivial


class Critic(torch.nn.Module):
    def __init__(self):
        super().__init__()
        hidden = regular(C4, 2)
        self.in_type, self.mixed = (
            trivial(C4, 2),
            nn.FieldType(C4, list(hidden.representations) + 2 * [C4.trivial_repr] + [C4.irrep(1)]),
        )
        self.image = nn.SequentialModule(nn.R2Conv(self.in_type, hidden, 9), nn.ReLU(hidden))
        out = trivial(C4, 3)
        self.value = nn.SequentialModule(
            nn.R2Conv(self.mixed, regular(C4, 2), 1),
            nn.ReLU(regular(C4, 2)),
            nn.GroupPooling(regular(C4, 2)),
            nn.R2Conv(trivial(C4, 2), out, 1),
        )

    def forward(self, obs, act):
        batch_size = obs.shape[0]
        features = self.image(nn.GeometricTensor(obs, self.in_type))
        dxy = act[:, 1:3]
        inv = torch.cat((act[:, 0:1], act[:, 3:]), dim=1).reshape(batch_size, -1, 1, 1)
        joined = torch.cat((features.tensor, inv, dxy.reshape(batch_size, 2, 1, 1)), dim=1)
        return self.value(nn.GeometricTensor(joined, self.mixed)).tensor.reshape(batch_size, 3)


def test_a_critic_takes_an_image_and_an_action():
    torch.manual_seed(0)
    critic = Critic().eval()
    batches = [(torch.rand(size, 2, 9, 9), torch.rand(size, 4)) for size in (2, 3)]
    assert_exports(critic, *batches)
    named = [{"obs": obs, "act": act} for obs, act in batches]
    assert_exports(critic, *named)
