"""Networks as users write them, for the tests of `export_model`."""

from __future__ import annotations

import itertools

import torch
from torch.nn import functional as F

from eq_aimet.adapters.e2cnn import enn, gspaces

SPACE = gspaces.Rot2dOnR2(4)
IMAGE = enn.FieldType(SPACE, [SPACE.trivial_repr])
HIDDEN = enn.FieldType(SPACE, 2 * [SPACE.regular_repr])


def convolve(in_type=HIDDEN, out_type=HIDDEN, kernel_size=3, **options):
    """Return convolution, batch norm and an in-place ReLU, as e2cnn's examples write them."""
    return enn.SequentialModule(
        enn.R2Conv(in_type, out_type, kernel_size, padding=kernel_size // 2, bias=False, **options),
        enn.InnerBatchNorm(out_type),
        enn.ReLU(out_type, inplace=True),
    )


class Lifted(torch.nn.Module):
    """The base: takes a plain image, lifts it, and leaves the rest to `body`."""

    def __init__(self):
        super().__init__()
        self.lift = convolve(IMAGE)
        self.build()

    def build(self):
        self.block = convolve()

    def forward(self, x):
        return self.body(self.lift(enn.GeometricTensor(x, IMAGE))).tensor


class Residual(Lifted):
    def body(self, x):
        return x + self.block(x)


class ResidualInPlace(Lifted):
    def body(self, x):
        out = self.block(x)
        out += x
        return out


class ChangedInPlace(Lifted):
    """The sum is seen under the name of the input too."""

    def body(self, x):
        y = x.tensor
        y += self.block(x).tensor
        return enn.GeometricTensor(x.tensor * 2.0 + y, x.type)


class ReluInPlace(Lifted):
    """e2cnn's in-place ReLU changes what the sum adds."""

    def build(self):
        self.convolution = enn.R2Conv(HIDDEN, HIDDEN, 3, padding=1)
        self.relu = enn.ReLU(HIDDEN, inplace=True)

    def body(self, x):
        x = self.convolution(x)
        return x + self.relu(x)


class SharedInPlace(Lifted):
    """A view of what changes in place is used later."""

    def body(self, x):
        view = x.tensor[:, :4]
        tensor = x.tensor
        tensor += 1.0
        return enn.GeometricTensor(torch.cat((view, view), 1), x.type)


class Nested(Lifted):
    def build(self):
        self.stages = torch.nn.ModuleList(
            [torch.nn.Sequential(convolve(), convolve()), torch.nn.ModuleDict({"last": convolve()})]
        )

    def body(self, x):
        return self.stages[1]["last"](self.stages[0](x))


class Reused(Lifted):
    def body(self, x):
        return self.block(self.block(x)) - x


class Scaled(Lifted):
    """A user's own parameter, numbers and a buffer."""

    def build(self):
        self.block = convolve()
        self.gain = torch.nn.Parameter(torch.tensor(0.3))
        self.register_buffer("offset", torch.tensor(0.5))

    def body(self, x):
        y = self.block(x) * self.gain
        y = 2.0 * y
        return enn.GeometricTensor(y.tensor + self.offset, y.type)


class Sliced(Lifted):
    """Fields taken apart and joined again."""

    def build(self):
        self.first = convolve(enn.FieldType(SPACE, [SPACE.regular_repr]))

    def body(self, x):
        first, second = x.split([1])
        joined = enn.tensor_directsum([second, self.first(x[:, 0]), x[:, -1:0:-1], first])
        return joined[..., 1:-1, 1:-1]


class Classifier(torch.nn.Module):
    """Plain torch behind the fields: functional calls, shapes and a default argument."""

    def __init__(self):
        super().__init__()
        self.lift = convolve(IMAGE)
        self.pool = enn.GroupPooling(HIDDEN)
        self.norm = torch.nn.BatchNorm1d(2)
        self.linear = torch.nn.Linear(2, 3)

    def forward(self, x, temperature=2.0, *, deep=True):
        batch, _, height, width = x.shape
        if height != width:
            raise ValueError(f"expected a square image, received {height}×{width}")
        x = self.pool(self.lift(enn.GeometricTensor(x, IMAGE))).tensor
        if x.shape[-1] > 5:
            x = F.avg_pool2d(x, 2)
        x = F.relu(x).mean((2, 3)).view(batch, -1)
        x = F.dropout(self.norm(x), 0.5, self.training)
        for _ in range(x.shape[1]):
            x = x + 1.0
        return F.log_softmax(self.linear(torch.flatten(x, 1)) / temperature, dim=1) if deep else x


class TwoInputs(torch.nn.Module):
    """Two inputs, one of them a typed field; a tuple and a dictionary out."""

    def __init__(self):
        super().__init__()
        self.lift = convolve(IMAGE)
        self.pool = enn.PointwiseAdaptiveAvgPool(HIDDEN, 1)

    def forward(self, image, field):
        lifted = self.lift(enn.GeometricTensor(image, IMAGE))
        total = lifted + field
        return total, {"pooled": self.pool(total).tensor.flatten(1), "shape": image.shape[2]}


class DataDependent(Lifted):
    def body(self, x):
        if x.tensor.sum() > 0:
            return x
        return self.block(x)


class Number(Lifted):
    def body(self, x):
        return x * float(x.tensor.mean())


class FixedBatch(Lifted):
    def body(self, x):
        for _ in range(x.shape[0]):
            x = x + x
        return x


class LengthOfBatch(Lifted):
    def body(self, x):
        return enn.GeometricTensor(x.tensor.reshape(len(x.tensor), 8, 9, 9), x.type)


class PlainIntoField(Lifted):
    def body(self, x):
        return self.block(x.tensor)


class WrongField(Lifted):
    def build(self):
        self.block = convolve(IMAGE)

    def body(self, x):
        return self.block(x)


class Unregistered(Lifted):
    def build(self):
        self.hidden_modules = [convolve()]

    def body(self, x):
        return self.hidden_modules[0](x)


class UnregisteredConvolution(Lifted):
    def build(self):
        self.hidden_modules = [enn.R2Conv(HIDDEN, HIDDEN, 3, padding=1)]

    def body(self, x):
        return x + self.hidden_modules[0](x)


class Assigned(Lifted):
    def body(self, x):
        x.tensor[:, 0] = 0.0
        return x


def random_network(build, seed=0):
    """Return a network in eval mode with random weights and statistics."""
    torch.manual_seed(seed)
    network = build()
    with torch.no_grad():
        for name, value in itertools.chain(network.named_parameters(), network.named_buffers()):
            if "running_var" in name:
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point() and getattr(value, "requires_grad", False):
                value.normal_()
        return network.train().eval()


def image(batch=2, size=9, seed=1):
    return torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def assert_same(plain, network, x):
    with torch.no_grad():
        expected, actual = network(x.clone()), plain(x)
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def class_names(plain):
    return {type(module).__module__.partition(".")[0] for module in plain.modules()}
