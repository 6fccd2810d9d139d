"""Random stacks of residual steps, pooling and depthwise layers compute the same after equalization."""

import copy

import torch
from block_networks import relative_change
from hypothesis import given, settings
from hypothesis import strategies as st
from spread_networks import ORDER, convolution
from torch import nn

from eq_aimet import equalize_equivariant, equivariance_error, symmetrize, tag_blocks
from eq_aimet.plain import Add, GroupMaxPool
from eq_aimet.symmetry import asymmetry, regular_actions


class Stack(nn.Module):
    """A random stack of residual steps, pooling and depthwise layers over C4 fields."""

    def __init__(self, steps, fields, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = convolution(1, fields, 3, scalar_in=True)
        self.steps, self.kinds = nn.ModuleList(), steps
        for kind in steps:
            self.steps.append(self._step(kind, fields))
        self.group_pool, self.flatten = GroupMaxPool((ORDER,) * fields), nn.Flatten()
        self.pool, self.linear = nn.AdaptiveAvgPool2d(1), nn.Linear(fields, 2)

    def _step(self, kind, fields):
        parts = {
            "residual": lambda: [convolution(fields, fields), nn.ReLU(), Add()],
            "plain": lambda: [convolution(fields, fields), nn.ReLU()],
            "depthwise": lambda: [convolution(fields, fields), nn.ReLU(), self._depthwise(fields), nn.ReLU()],
            "pool": lambda: [nn.AvgPool2d(3, 1, 1)],
            "sigmoid": lambda: [nn.Sigmoid()],
        }
        return nn.ModuleList(parts[kind]())

    def _depthwise(self, fields):
        layer = nn.Conv2d(ORDER * fields, ORDER * fields, 3, padding=1, groups=fields)
        blocks = (ORDER,) * fields
        tag_blocks(layer, blocks, actions=regular_actions(blocks, blocks, order=ORDER, kernel_size=3))
        symmetrize(layer)
        return layer

    def forward(self, x):
        x = self.stem(x)
        for kind, parts in zip(self.kinds, self.steps, strict=True):
            if kind == "residual":
                x = parts[2](x, parts[1](parts[0](x)))
            else:
                for part in parts:
                    x = part(x)
        return self.linear(self.flatten(self.pool(self.group_pool(x))))


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["residual", "plain", "depthwise", "pool", "sigmoid"]), max_size=5),
    fields=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_random_stacks_compute_the_same_and_stay_equivariant(steps, fields, seed):
    model, x = Stack(steps, fields, seed).eval(), torch.randn(1, 1, 7, 7)
    before = copy.deepcopy(model).double()(x.double()).detach()
    error = equivariance_error(model, x).worst
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert relative_change(before, model.double()(x.double())) <= 1e-5
    assert equivariance_error(model, x).worst <= max(error, 1e-10)
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert sorted(layer.name for layer in report.layers) == sorted(names)
    assert all(layer.reason for layer in report.left_out)
    assert asymmetry(model) == 0.0
