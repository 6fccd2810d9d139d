"""torch's functions and tensor methods become modules that compute the same bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from eq_aimet import export_model, plain
from eq_aimet.adapters.e2cnn import enn, gspaces

SPACE = gspaces.Rot2dOnR2(4)
IMAGE = enn.FieldType(SPACE, [SPACE.trivial_repr])
HIDDEN = enn.FieldType(SPACE, 2 * [SPACE.regular_repr])


class Head(nn.Module):
    """A convolution whose output a function of the test takes."""

    def __init__(self, function):
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3)  # e2cnn's would be projected, which moves its last bits
        self.function = function
        self.scalar = nn.Parameter(torch.tensor(0.3))
        self.channels = nn.Parameter(torch.linspace(-1, 1, 8).reshape(1, 8, 1, 1))
        self.matrix = nn.Parameter(torch.linspace(-1, 1, 24).reshape(3, 8))
        self.bias = nn.Parameter(torch.linspace(0, 1, 3))
        self.register_buffer("grid", torch.linspace(0, 1, 49).reshape(1, 1, 7, 7))

    def forward(self, x):
        return self.function(self.convolution(x), self)


def exported(function, dtype=torch.float32):
    torch.manual_seed(0)
    model = Head(function).eval().to(dtype)
    x = torch.randn(2, 1, 9, 9, dtype=dtype)
    plain_model = export_model(model, x)
    with torch.no_grad():
        assert torch.equal(plain_model(x), model(x))
    return plain_model


def added(model):
    """Return the classes of the modules behind the convolution, and whether an operation is left."""
    classes = [
        type(model.get_submodule(node.target)) for node in model.graph.nodes if node.op == "call_module"
    ]
    left = [node.target for node in model.graph.nodes if node.op in ("call_function", "call_method")]
    return classes[1:], left


FUNCTIONS = {
    "mean": (lambda t, m: t.mean((2, 3)), [plain.Mean]),
    "mean, negative, kept": (lambda t, m: torch.mean(t, dim=(-1, -2), keepdim=True), [plain.Mean]),
    "mean of one": (lambda t, m: t.mean(-1), [plain.Mean]),
    "sum": (lambda t, m: t.sum(dim=[2, 3]), [plain.Sum]),
    "amax": (lambda t, m: torch.amax(t, (2, 3)), [plain.Largest]),
    "amin": (lambda t, m: t.amin(dim=2, keepdim=True), [plain.Smallest]),
    "max, first of two": (lambda t, m: t.max(2)[0].max(dim=-1).values, [plain.Largest, plain.Largest]),
    "adaptive": (lambda t, m: F.adaptive_avg_pool2d(t, 1), [nn.AdaptiveAvgPool2d]),
    "adaptive, one side": (lambda t, m: F.adaptive_avg_pool2d(t, (None, 1)), [nn.AdaptiveAvgPool2d]),
    "adaptive, largest": (lambda t, m: F.adaptive_max_pool2d(t, 1), [nn.AdaptiveMaxPool2d]),
    "adaptive, uneven": (lambda t, m: F.adaptive_max_pool2d(t, (3, 2)), [plain.UnevenMaxPool]),
    "average pool": (lambda t, m: F.avg_pool2d(t, 3, stride=2, padding=1), [nn.AvgPool2d]),
    "average pool, size": (lambda t, m: F.avg_pool2d(t, t.shape[-1]), [nn.AvgPool2d]),
    "max pool": (lambda t, m: F.max_pool2d(t, (3, 2), ceil_mode=True), [nn.MaxPool2d]),
    "pad": (lambda t, m: F.pad(t, (1, 0, 2, 1)), [nn.ZeroPad2d]),
    "pad by one": (lambda t, m: F.pad(t, (1, 1), value=1.0), [plain.ConstantPad]),
    "reflect": (lambda t, m: F.pad(t, (1, 1, 1, 1), mode="reflect"), [nn.ReflectionPad2d]),
    "interpolate": (lambda t, m: F.interpolate(t, scale_factor=2), [nn.Upsample]),
    "flatten": (lambda t, m: torch.flatten(t, 1), [nn.Flatten]),
    "flatten method": (lambda t, m: t.flatten(start_dim=2, end_dim=3), [nn.Flatten]),
    "relu": (lambda t, m: F.relu(torch.relu(t.relu())), 3 * [nn.ReLU]),
    "leaky": (lambda t, m: F.leaky_relu(t, 0.2), [nn.LeakyReLU]),
    "sigmoid": (lambda t, m: torch.sigmoid(t), [nn.Sigmoid]),
    "tanh": (lambda t, m: F.tanh(t), [nn.Tanh]),
    "elu": (lambda t, m: F.celu(F.selu(F.elu(t, 0.5)), 2.0), [nn.ELU, nn.SELU, nn.CELU]),
    "smooth": (lambda t, m: F.mish(F.silu(F.softplus(t, 2))), [nn.Softplus, nn.SiLU, nn.Mish]),
    "hard": (
        lambda t, m: F.hardtanh(F.hardsigmoid(F.hardswish(t)), 0.1, 0.9),
        [nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh],
    ),
    "soft": (lambda t, m: F.logsigmoid(F.softsign(t)), [nn.Softsign, nn.LogSigmoid]),
    "log of softmax": (lambda t, m: F.log_softmax(t, 1), [nn.LogSoftmax]),
    "larger": (
        lambda t, m: torch.maximum(t, torch.relu(t)).minimum(t + t),
        [nn.ReLU, plain.Maximum, plain.Add, plain.Minimum],
    ),
    "shuffle": (lambda t, m: F.pixel_shuffle(t, 2), [nn.PixelShuffle]),
    "difference": (lambda t, m: t - torch.relu(t), [nn.ReLU, plain.Subtract]),
    "replicate": (lambda t, m: F.pad(t, (1, 0, 0, 2), mode="replicate"), [nn.ReplicationPad2d]),
    "bilinear": (
        lambda t, m: F.interpolate(t, scale_factor=1.5, mode="bilinear"),
        [nn.Upsample],
    ),
    "clamp": (lambda t, m: t.clamp(min=0), [nn.ReLU]),
    "clamp between": (lambda t, m: torch.clamp(t, -0.5, 0.5), [nn.Hardtanh]),
    "relu6": (lambda t, m: F.relu6(t), [nn.ReLU6]),
    "gelu": (lambda t, m: F.gelu(t, approximate="tanh"), [nn.GELU]),
    "softmax": (lambda t, m: F.softmax(t.mean((2, 3)), dim=-1), [plain.Mean, nn.Softmax]),
    "cat": (lambda t, m: torch.cat([t, t], dim=1), [plain.Concat]),
    "product": (lambda t, m: t * torch.sigmoid(t), [nn.Sigmoid, plain.Multiply]),
    "quotient": (lambda t, m: t / torch.exp(t), [plain.QuantizationPoint, plain.Divide]),
    "matrix product": (
        lambda t, m: t.flatten(2) @ t.flatten(2).mT,
        [nn.Flatten, nn.Flatten, plain.MatrixProduct],
    ),
    "scalar": (lambda t, m: m.scalar * t, [plain.Scale]),
    "scalar of a scalar": (lambda t, m: t * torch.tanh(m.scalar), [plain.Scale]),
    "channels": (lambda t, m: t * m.channels + m.channels, [plain.Scale, plain.Shift]),
    "number": (lambda t, m: 2 * t - 1, [plain.Scale, plain.Shift]),
    "halves": (lambda t, m: -(t / 2), [plain.Scale, plain.Scale]),
    "grid": (lambda t, m: t + m.grid, [plain.Shift]),
    "linear": (lambda t, m: F.linear(t.mean((2, 3)), m.matrix, m.bias), [plain.Mean, nn.Linear]),
    "convolution": (lambda t, m: F.conv2d(t, m.matrix[:, :, None, None], stride=2), [nn.Conv2d]),
    "norm": (lambda t, m: F.layer_norm(t, (7, 7), m.grid[0, 0]), [nn.LayerNorm]),
    "normalize": (lambda t, m: F.normalize(t.mean((2, 3))), [plain.Mean, plain.QuantizationPoint]),
    "dropout": (lambda t, m: F.dropout(t, 0.5, m.training), [nn.Dropout]),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_becomes_modules_of_the_same_bits(name, dtype):
    function, expected = FUNCTIONS[name]
    assert added(exported(function, dtype))[0] == expected


@settings(max_examples=25, deadline=None)
@given(
    dims=st.lists(st.integers(-4, 3), min_size=1, max_size=3, unique_by=lambda dim: dim % 4),
    keepdim=st.booleans(),
    method=st.sampled_from(["mean", "sum", "amax", "amin"]),
    as_function=st.booleans(),
)
def test_reductions_over_any_dimensions_become_modules(dims, keepdim, method, as_function):
    def reduce(t, m):
        if as_function:
            return getattr(torch, method)(t, dims, keepdim=keepdim)
        return getattr(t, method)(tuple(dims), keepdim)

    (module,), left = added(exported(reduce))
    assert module in (plain.Mean, plain.Sum, plain.Largest, plain.Smallest)
    assert not left


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    stride=st.one_of(st.none(), st.integers(1, 3)),
    padding=st.integers(0, 1),
    ceil_mode=st.booleans(),
    kind=st.sampled_from([F.avg_pool2d, F.max_pool2d]),
)
def test_poolings_keep_their_arguments(kernel, stride, padding, ceil_mode, kind):
    model = exported(lambda t, m: kind(t, kernel, stride, padding, ceil_mode=ceil_mode))
    (module,), left = added(model)
    assert module in (nn.AvgPool2d, nn.MaxPool2d)
    assert not left


@settings(max_examples=20, deadline=None)
@given(size=st.tuples(st.integers(1, 7), st.integers(1, 7)), kind=st.sampled_from(["avg", "max"]))
def test_adaptive_poolings_to_any_size_compute_the_same_on_other_grids_too(size, kind):
    pool = {"avg": F.adaptive_avg_pool2d, "max": F.adaptive_max_pool2d}[kind]
    torch.manual_seed(0)
    model = Head(lambda t, m: pool(t, size)).eval()
    plain_model = export_model(model, torch.randn(1, 1, 9, 9))
    other = torch.randn(2, 1, 11, 10)
    torch.testing.assert_close(plain_model(other), model(other))


def test_a_parameter_reaches_the_module_and_stays_one_where_it_is_used_twice():
    model = exported(lambda t, m: t * m.scalar + m.scalar)
    scale, shift = model.multiply, model.add
    assert isinstance(scale.factor, nn.Parameter)
    assert scale.factor is shift.offset
    assert "scalar" not in dict(model.named_parameters())


def test_an_argument_without_a_place_in_the_module_leaves_the_function():
    model = exported(lambda t, m: t.mean((2, 3), dtype=torch.float64).float())
    assert added(model)[1][0] == "mean"


def test_an_input_that_a_movement_reads_is_quantized_first():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = enn.R2Conv(IMAGE, HIDDEN, 3)

        def forward(self, x):
            b, t, c, h, w = x.shape
            y = self.convolution(enn.GeometricTensor(x.view(b * t, c, h, w), IMAGE)).tensor
            return y.view(b, t, 8, 7, 7).mean((1, 3, 4))

    model, x = Folded().eval(), torch.randn(2, 3, 1, 9, 9)
    plain_model = export_model(model, x)
    assert isinstance(plain_model.quantization_point, plain.QuantizationPoint)
    for batch in (x, torch.randn(4, 3, 1, 9, 9)):
        torch.testing.assert_close(plain_model(batch), model(batch))
