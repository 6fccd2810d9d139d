"""A small equivariant network whose `forward` a test continues, and the comparison of an export with it."""

from __future__ import annotations

import torch
from e2cnn import gspaces, nn

from eq_aimet import export_model
from eq_aimet.symmetry.calling import call_model, named_tensors

SPACE = gspaces.Rot2dOnR2(4)
IMAGE = nn.FieldType(SPACE, [SPACE.trivial_repr])
HIDDEN = nn.FieldType(SPACE, 2 * [SPACE.regular_repr])


class Small(torch.nn.Module):
    """A convolution of fields, and then `tail(model, x, t)` of the image x and the plain result t."""

    def __init__(self, tail=lambda model, x, t: t):
        super().__init__()
        torch.manual_seed(0)
        self.tail = tail
        self.convolution = nn.R2Conv(IMAGE, HIDDEN, 3, padding=1)
        self.pool = nn.GroupPooling(HIDDEN)
        self.head = torch.nn.Conv2d(2, 2, 1)
        self.gain = torch.nn.Parameter(torch.tensor(0.3))
        self.register_buffer("offset", torch.tensor([0.5, -0.5])[:, None, None])
        self.eval()

    def forward(self, x):
        return self.tail(self, x, self.pool(self.convolution(nn.GeometricTensor(x, IMAGE))).tensor)


def image(batch=2, size=9, dtype=torch.float32):
    return torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(batch)).to(dtype)


def run(model, inputs):
    with torch.no_grad():
        return named_tensors(call_model(model, inputs))


def assert_exports(model, *batches, tolerance=1e-6):
    """Assert that the export for the first batch computes on all batches what the model does."""
    plain = export_model(model, batches[0])
    for batch in batches:
        expected, actual = run(model, batch), run(plain, batch)
        assert list(actual) == list(expected)
        for name, wanted in expected.items():
            assert actual[name].shape == wanted.shape
            assert actual[name].dtype == wanted.dtype
            scale = float(wanted.abs().max()) or 1.0
            assert float((actual[name] - wanted).abs().max()) <= tolerance * scale
    return plain
