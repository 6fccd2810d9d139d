"""Equalization across residual sums, pooling, group pooling, masks, concatenation and linear layers."""

import copy

import pytest
import torch
from block_networks import relative_change
from spread_networks import ORDER, Head, Residual, convolution
from torch import nn

from eq_aimet import equalize_equivariant, equivariance_error
from eq_aimet.plain import (
    Add,
    BlockNorm,
    Concat,
    ConcatenatedActivation,
    Gate,
    GroupMaxPool,
    Mask,
    NormActivation,
    NormMaxPool,
    SelectChannels,
    VectorField,
)
from eq_aimet.symmetry import asymmetry


def test_a_residual_stream_shares_one_scale_per_block():
    model, x = Residual().eval(), torch.randn(2, 1, 5, 5)
    before = model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    (region,) = report.regions
    assert region.sources == ("stem", "first", "second")
    assert region.sinks == ("first", "second", "linear")
    assert region.count == 3
    assert report.left_out == ()
    assert region.scales.largest > 1.5 * region.scales.smallest
    assert relative_change(before, model(x)) <= 1e-5


def test_ties_stay_to_the_last_bit_and_the_scales_are_constant_on_blocks():
    model, x = Residual().eval(), torch.randn(1, 1, 5, 5)
    original = copy.deepcopy(model)
    equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert asymmetry(model) == 0.0
    factors = (model.stem.weight / original.stem.weight).flatten(1)
    assert (factors.reshape(3, -1).amax(1) - factors.reshape(3, -1).amin(1)).max() <= 1e-6 * factors.max()
    assert (
        equivariance_error(
            nn.Sequential(model.stem, model.relu, model.first, GroupMaxPool((4, 4, 4))), x
        ).worst
        < 1e-10
    )


@pytest.mark.parametrize(
    ("between", "sink"),
    [
        ([nn.ReLU(), nn.AvgPool2d(2)], None),
        ([nn.ReLU(), nn.MaxPool2d(3, 2, 1)], None),
        ([nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Identity()], None),
        ([nn.Upsample(scale_factor=2, mode="bilinear")], None),
        ([Mask(torch.rand(3, 3))], None),
        ([nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(8, 3)),
        ([nn.ReLU(), nn.Flatten()], nn.Linear(72, 3)),
        ([GroupMaxPool((4, 4)), nn.ReLU()], nn.Conv2d(2, 3, 1)),
        ([GroupMaxPool((4, 4)), nn.AdaptiveAvgPool2d(1), nn.Flatten()], nn.Linear(2, 3)),
        ([NormActivation((4, 4), "relu", torch.tensor([0.01, 5.0]))], None),
        ([NormActivation((4, 4), "relu")], None),
        ([NormMaxPool((4, 4), (2, 2), (1, 1))], None),
        ([BlockNorm((4, 4))], nn.Conv2d(2, 3, 1)),
        ([VectorField(4)], nn.Conv2d(4, 3, 1)),
        ([ConcatenatedActivation("relu")], nn.Conv2d(16, 3, 1)),
        ([SelectChannels((4, 5, 6, 7, 0, 1, 2, 3)), nn.ReLU()], None),
        ([SelectChannels((4, 5, 6, 7))], convolution(1, 1)),
        ([nn.PixelShuffle(2), nn.ReLU()], nn.Conv2d(2, 3, 1)),
        ([nn.ReLU(), nn.AvgPool2d(2)], nn.ConvTranspose2d(8, 4, 3, stride=2)),
        ([nn.ReLU(), nn.AvgPool2d(2)], nn.ConvTranspose2d(8, 4, 3, groups=2)),
        ([nn.ReLU(), nn.AvgPool2d(2)], nn.Conv2d(8, 4, 1, groups=4)),
    ],
    ids=lambda value: (
        "-".join(type(m).__name__ for m in value) if isinstance(value, list) else type(value).__name__
    ),
)
def test_what_commutes_is_crossed(between, sink):
    torch.manual_seed(0)
    model, x = Head(*between, sink=sink).eval(), torch.randn(2, 1, 5, 5)
    original, before = copy.deepcopy(model), model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert [(region.sources, region.sinks) for region in report.regions] == [(("source",), ("sink",))]
    assert not torch.allclose(model.source.weight, original.source.weight)
    assert relative_change(before, model(x)) <= 1e-5
    assert asymmetry(model.source) == 0.0


def test_the_ranges_of_source_and_sink_become_equal():
    torch.manual_seed(0)
    model, x = Head(GroupMaxPool((4, 4)), nn.ReLU(), sink=nn.Conv2d(2, 3, 1)).eval(), torch.randn(1, 1, 5, 5)
    before = model.source.weight.abs().reshape(2, -1).amax(1)
    equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    written, read = model.source.weight.abs().reshape(2, -1).amax(1), model.sink.weight.abs().amax((0, 2, 3))
    torch.testing.assert_close(written, read)
    assert before.max() / before.min() > 10 * written.max() / written.min()


@pytest.mark.parametrize(
    "between",
    [
        nn.Sigmoid(),
        nn.Softplus(),
        nn.ELU(),
        NormActivation((4, 4), "sigmoid"),
        ConcatenatedActivation("tanh"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_what_does_not_commute_is_not_crossed(between):
    sink = nn.Conv2d(16, 3, 1) if isinstance(between, ConcatenatedActivation) else None
    model, x = Head(between, sink=sink).eval(), torch.randn(1, 1, 5, 5)
    original, before = copy.deepcopy(model), model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert report.regions == ()
    assert [layer.name for layer in report.left_out] == ["source", "sink"]
    assert "does not commute with a positive scale" in report.left_out[0].reason
    torch.testing.assert_close(model.source.weight, original.source.weight, rtol=0, atol=0)
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


class Branches(nn.Module):
    """A concatenation, one branch of which goes through a sigmoid as well."""

    def __init__(self, sigmoid):
        super().__init__()
        torch.manual_seed(1)
        self.stem = convolution(1, 2, 3, scalar_in=True)
        self.left, self.right, self.sink = convolution(2, 1), convolution(2, 2), convolution(3, 1)
        self.concat, self.relu = Concat(), nn.ReLU()
        self.gate = nn.Sigmoid() if sigmoid else None

    def forward(self, x):
        x = self.relu(self.stem(x))
        left, right = self.left(x), self.right(x)
        if self.gate is not None:
            left = self.gate(left)
        return self.sink(self.concat(left, right))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_concatenation_keeps_the_scales_of_its_parts_apart(sigmoid):
    model, x = Branches(sigmoid).eval(), torch.randn(2, 1, 5, 5)
    original, before = copy.deepcopy(model), model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    joined = next(region for region in report.regions if region.sinks == ("sink",))
    assert joined.sources == (("right",) if sigmoid else ("left", "right"))
    assert joined.count == (2 if sigmoid else 3)
    scaled = (model.sink.weight / original.sink.weight).flatten(2)[0, :, 0].reshape(3, ORDER)
    assert torch.equal(scaled[0], torch.ones(ORDER)) == sigmoid
    assert relative_change(before, model(x)) <= 1e-5


class Gated(nn.Module):
    """Fields multiplied by the sigmoid of gates: scales pass through the fields alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.gates, self.fields = nn.Conv2d(1, 2, 3), convolution(1, 2, 3, scalar_in=True)
        self.gate, self.sink = Gate(torch.zeros(2), [0] * 4 + [1] * 4), convolution(2, 1)

    def forward(self, x):
        return self.sink(self.gate(self.gates(x), self.fields(x)))


def test_gated_fields_scale_and_their_gates_do_not():
    model, x = Gated().eval(), torch.randn(2, 1, 5, 5)
    original, before = copy.deepcopy(model), model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert [(region.sources, region.sinks) for region in report.regions] == [(("fields",), ("sink",))]
    assert [layer.name for layer in report.left_out] == ["gates"]
    assert "ShiftedSigmoid `gate.sigmoid` does not commute" in report.left_out[0].reason
    torch.testing.assert_close(model.gates.weight, original.gates.weight, rtol=0, atol=0)
    assert relative_change(before, model(x)) <= 1e-5


class Returned(nn.Module):
    """The sum is an output of the model as well."""

    def __init__(self):
        super().__init__()
        self.stem, self.side, self.sink = (
            convolution(1, 1, 3, scalar_in=True),
            convolution(1, 1),
            convolution(1, 1),
        )
        self.add = Add()

    def forward(self, x):
        x = self.stem(x)
        x = self.add(x, self.side(x))
        return x, self.sink(x)


def test_an_output_of_the_model_keeps_its_scale():
    model, x = Returned().eval(), torch.randn(2, 1, 5, 5)
    with torch.no_grad():
        before = model(x)
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    assert report.regions == ()
    for old, new in zip(before, model(x), strict=True):
        assert relative_change(old, new) <= 1e-6


def test_a_layer_that_runs_twice_is_not_touched():
    model = Residual().eval()
    model.second = model.first
    x = torch.randn(2, 1, 5, 5)
    original, before = copy.deepcopy(model), model(x).detach()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    torch.testing.assert_close(model.first.weight, original.first.weight, rtol=0, atol=0)
    assert "`first` runs 2 times in one forward pass" in {layer.reason for layer in report.left_out}
    assert relative_change(before, model(x)) <= 1e-5
