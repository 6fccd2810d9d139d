"""Small networks of C_N with tagged layers, tied random weights and strongly spread batch norms."""

import torch
from torch import nn

from eq_aimet.plain import Add, GroupMaxPool
from eq_aimet.symmetry import regular_actions, symmetrize, tag_blocks


def convolution(
    fields_in, fields_out, kernel_size=1, *, order=4, image=False, depthwise=None, bias=False, **options
):
    """A tied convolution between regular fields; `depthwise` is "channel" or "field"."""
    blocks_in = [1] * fields_in if image else [order] * fields_in
    blocks_out = [order] * fields_out
    groups = {None: 1, "channel": order * fields_in, "field": fields_in}[depthwise]
    layer = nn.Conv2d(sum(blocks_in), sum(blocks_out), kernel_size, groups=groups, bias=bias, **options)
    actions = regular_actions(blocks_in, blocks_out, order=order, kernel_size=kernel_size)
    tag_blocks(layer, blocks_in, blocks_out, actions=actions)
    if actions:
        symmetrize(layer)
    return layer


def norm(fields, *, order=4, spread=1.5, shift=0.5):
    """A batch norm whose statistics differ by field, but not within one."""
    layer = nn.BatchNorm2d(fields * order)
    tag_blocks(layer, order)

    def of_fields(values):
        return (
            nn.Parameter(values.repeat_interleave(order))
            if values.requires_grad
            else values.repeat_interleave(order)
        )

    with torch.no_grad():
        layer.weight.copy_(of_fields(torch.exp(spread * torch.randn(fields))))
        layer.bias.copy_(of_fields(shift + torch.randn(fields)))
        layer.running_mean.copy_(of_fields(torch.randn(fields)))
        layer.running_var.copy_(of_fields(torch.exp(spread * torch.randn(fields))))
    return layer


class Residual(nn.Module):
    """Expansion, depthwise layer and projection around a residual addition."""

    def __init__(self, fields, hidden, depthwise, order):
        super().__init__()
        self.body = nn.Sequential(
            convolution(fields, hidden, order=order),
            norm(hidden, order=order),
            nn.ReLU(),
            convolution(hidden, hidden, 3, order=order, depthwise=depthwise, padding=1),
            norm(hidden, order=order),
            nn.ReLU(),
            convolution(hidden, fields, order=order),
            norm(fields, order=order),
        )
        self.add = Add()

    def forward(self, x):
        return self.add(x, self.body(x))


class Network(nn.Module):
    """A MobileNet in small: strided stem, depthwise triplet, residual block, last layer, invariant head.

    Inputs of 17×17 keep the grids odd: 17 → 9 → 9.
    """

    def __init__(self, depthwise="channel", order=4, fields=3, hidden=5, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(
            convolution(3, fields, 3, order=order, image=True, stride=2, padding=1),
            norm(fields, order=order),
            nn.ReLU(),
        )
        self.depthwise = nn.Sequential(
            convolution(fields, fields, 3, order=order, depthwise=depthwise, padding=1),
            norm(fields, order=order),
            nn.ReLU(),
            convolution(fields, fields, order=order),
            norm(fields, order=order),
        )
        self.residual = Residual(fields, hidden, depthwise, order)
        self.last = nn.Sequential(convolution(fields, 4, order=order), norm(4, order=order), nn.ReLU())
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), GroupMaxPool((order,) * 4), nn.Linear(4, 2)
        )
        self.eval()

    def forward(self, x):
        return self.head(self.last(self.residual(self.depthwise(self.stem(x)))))


class Conventional(nn.Module):
    """The same kind of network without any blocks."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            norm(8, order=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            norm(8, order=1),
            nn.ReLU(),
            nn.Conv2d(8, 6, 1, bias=False),
            norm(6, order=1),
            nn.Conv2d(6, 5, 1, bias=False),
            norm(5, order=1),
        )
        for layer in self.layers:
            layer.__dict__.pop("eq_aimet_blocks", None)
        self.eval()

    def forward(self, x):
        return self.layers(x)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def relative_change(before, after):
    return float((after.detach() - before).abs().max() / before.abs().max())
