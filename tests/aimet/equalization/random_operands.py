"""Random networks whose steps have learned, constant and repeated operands, in place or not."""

import torch
from block_networks import convolution, norm
from torch import nn
from torch.nn import functional as F


def shift(module, x):
    return x + module.shift


def shift_from_the_left(module, x):
    return module.shift - x


def shift_with_alpha(module, x):
    return torch.add(x, module.shift, alpha=2)


def shift_in_place(module, x):
    return x.clone().sub_(module.shift)


def slice_of_positions(module, x):
    return x + module.positions[:, :, : x.shape[2], : x.shape[3]]


def largest(module, x):
    return torch.maximum(x, module.shift)


def normalized(module, x):
    return (x - module.mean) / module.deviation


def scaled(module, x):
    return module.gain * x


def divided(module, x):
    return 3.0 / (1.0 + (x / 2).abs())


def plus_a_number(module, x):
    return x + 0.5


def minus_from_a_number(module, x):
    return 1 - x


def doubled(module, x):
    return x + x


def squared(module, x):
    return x * x


def powered(module, x):
    return torch.pow(x, 2).mul_(0.1)


def square_root(module, x):
    return x.square().add(1).rsqrt() * x


def gated(module, x):
    return x * torch.sigmoid(module.layer(x))


def twice(module, x):
    return F.relu(module.layer(F.relu(module.layer(x))))


def twice_with_norm(module, x):
    return F.relu(module.norm(module.layer(x))) + F.relu(module.norm(module.layer(2 * x)))


def residual(module, x):
    return F.relu(module.layer(x)) + x


def in_place_residual(module, x):
    y = module.layer(x)
    y += x
    return y.relu_()


def attention(module, x):
    tokens = x.flatten(2)
    weights = torch.softmax(tokens.transpose(1, 2) @ tokens / 9, -1)
    return (tokens @ weights).reshape(x.shape)


def overwritten_part(module, x):
    x = x.clone()
    x[:, :4] = F.relu(x[:, :4]) + 1
    return x


def turned(module, x):
    return F.pad(x.rot90(1, (2, 3)).flip(-1), (1, 1, 1, 1))[:, :, 1:-1, 1:-1]


def moved_channels(module, x):
    return torch.cat([x[:, 4:], x[:, :4]], 1).contiguous()


def masked(module, x):
    return torch.where(x > 0, x, torch.zeros_like(x)) + x.clamp(max=0)


def largest_of_the_block(module, x):
    return x.unflatten(1, (-1, 4)).amax(2).repeat_interleave(4, 1)


def functional_weight(module, x):
    return F.conv2d(x, module.layer.weight)


def folded_norm(module, x):
    return F.relu(module.norm(module.layer(x)))


def own_norm(module, x):
    return module.norm(F.relu(x))


STEPS = {
    function.__name__: function
    for function in (
        *(shift, shift_from_the_left, shift_with_alpha, shift_in_place, slice_of_positions, largest),
        *(normalized, scaled, divided, plus_a_number, minus_from_a_number, doubled, squared, powered),
        *(square_root, gated, twice, twice_with_norm, residual, in_place_residual, attention),
        *(overwritten_part, turned, moved_channels, masked, largest_of_the_block, functional_weight),
        *(folded_norm, own_norm),
    )
}


def per_block(values):
    """One value per block of four channels, so that the network stays equivariant."""
    return values.repeat_interleave(4).reshape(1, -1, 1, 1)


class Step(nn.Module):
    """One random step, with all the parameters that any step reads."""

    def __init__(self, name, fields):
        super().__init__()
        self.name = name
        self.layer, self.norm = convolution(fields, fields, bias=True), norm(fields)
        self.shift = nn.Parameter(per_block(torch.randn(fields)))
        self.gain = nn.Parameter(per_block(torch.rand(fields) + 0.5))
        self.positions = nn.Parameter(per_block(torch.randn(fields)).expand(1, -1, 9, 9).clone())
        self.register_buffer("mean", per_block(torch.randn(fields)))
        self.register_buffer("deviation", per_block(torch.rand(fields) + 0.5))

    def forward(self, x):
        return STEPS[self.name](self, x)


class OperandNetwork(nn.Module):
    """A stem, random steps with convolutions between, and a last layer."""

    def __init__(self, names, fields, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = convolution(1, fields, 3, image=True, bias=True)
        self.steps = nn.ModuleList(Step(name, fields) for name in names)
        self.between = nn.ModuleList(convolution(fields, fields, bias=True) for _ in names)
        self.last, self.pool = convolution(fields, 1, bias=True), nn.AdaptiveAvgPool2d(1)
        with torch.no_grad():
            for layer in (self.stem, *self.between):
                layer.weight *= torch.logspace(-1, 1, fields).repeat_interleave(4).reshape(-1, 1, 1, 1)
        self.eval()

    def forward(self, x):
        x = self.stem(x)
        for step, layer in zip(self.steps, self.between, strict=True):
            x = torch.tanh(layer(step(x))) if step.name in ("attention", "powered") else layer(step(x))
        return self.pool(self.last(x).relu() + 1e-3).flatten(1)
