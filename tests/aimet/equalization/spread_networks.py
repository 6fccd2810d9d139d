"""Networks of C4 whose weights differ in size from block to block, with ties, for regions to be found in."""

import torch
from torch import nn

from eq_aimet import symmetrize, tag_blocks
from eq_aimet.plain import Add, GroupMaxPool, Mask
from eq_aimet.symmetry import regular_actions

ORDER = 4


def convolution(fields_in, fields_out, kernel=1, scalar_in=False, **options):
    """A tied convolution between regular fields of C4, whose weights differ in size from block to block."""
    blocks_in = (1,) * fields_in if scalar_in else (ORDER,) * fields_in
    blocks_out = (ORDER,) * fields_out
    layer = nn.Conv2d(sum(blocks_in), sum(blocks_out), kernel, **options)
    actions = regular_actions(blocks_in, blocks_out, order=ORDER, kernel_size=kernel)
    tag_blocks(layer, blocks_in, blocks_out, actions=actions)
    symmetrize(layer)
    spread = torch.logspace(-2, 2, fields_out).repeat_interleave(ORDER)
    with torch.no_grad():
        layer.weight *= spread.reshape(-1, 1, 1, 1)
        layer.bias *= spread
    return layer


class Residual(nn.Module):
    """Two residual sums, a mask and group pooling before a linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.stem = convolution(1, 3, 3, scalar_in=True)
        self.first, self.second = convolution(3, 3), convolution(3, 3)
        self.add, self.add_2, self.relu, self.relu_2 = Add(), Add(), nn.ReLU(), nn.ReLU()
        self.mask = Mask(torch.tensor([[0.0, 1, 0], [1, 1, 1], [0, 1, 0]]))
        self.pool, self.group_pool, self.flatten = (
            nn.MaxPool2d(2, 1),
            GroupMaxPool((ORDER,) * 3),
            nn.Flatten(),
        )
        self.linear = nn.Linear(12, 2)

    def forward(self, x):
        x = self.stem(x)
        x = self.add(x, self.first(self.relu(x)))
        x = self.add_2(x, self.second(self.relu_2(x)))
        return self.linear(self.flatten(self.group_pool(self.pool(self.mask(x)))))


class Head(nn.Module):
    """One convolution, modules between, and a layer that reads it."""

    def __init__(self, *between, sink=None):
        super().__init__()
        self.source = convolution(1, 2, 3, scalar_in=True)
        self.between = nn.Sequential(*between)
        self.sink = sink or convolution(2, 1)

    def forward(self, x):
        return self.sink(self.between(self.source(x)))
