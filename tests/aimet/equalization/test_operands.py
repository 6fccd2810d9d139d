"""Operations whose operands are parameters, buffers, constants, or one activation several times."""

import copy

import pytest
import torch
from block_networks import relative_change
from hypothesis import given, settings
from hypothesis import strategies as st
from random_operands import STEPS, OperandNetwork
from torch import nn

from eq_aimet import equalize_equivariant, equivariance_error
from eq_aimet.errors import EqualizationError

IMAGE = torch.randn(2, 1, 7, 7, generator=torch.Generator().manual_seed(1))
# Whether the scale of `stem` can move through the step.
PASSED = {
    *("shift", "shift_from_the_left", "shift_with_alpha", "shift_in_place", "slice_of_positions", "largest"),
    *("normalized", "scaled", "doubled", "turned", "moved_channels", "masked", "largest_of_the_block"),
    *("own_norm", "folded_norm", "gated", "residual", "in_place_residual"),
}
STOPPED = {
    "divided": "joins it with the number 1.0, which does not scale along",
    "plus_a_number": "joins it with the number 0.5, which does not scale along",
    "minus_from_a_number": "joins it with the number 1, which does not scale along",
    "squared": "multiplies two activations that both scale",
    "powered": "'pow' does not commute with a positive scale",
    "square_root": "'pow' does not commute with a positive scale",
    "twice": "`steps.0.layer` runs 2 times in one forward pass",
    "twice_with_norm": "`steps.0.layer` runs 2 times in one forward pass",
    "functional_weight": "'convolution' does not commute with a positive scale",
}


def outputs(model):
    with torch.no_grad():
        return [copy.deepcopy(model).double()(factor * IMAGE.double()) for factor in (1, 10, -0.1)]


@pytest.mark.parametrize("name", sorted(PASSED))
def test_operands_that_scale_along_are_passed(name):
    model = OperandNetwork([name], 2, 0)
    stem, before = model.stem.weight.clone(), outputs(model)
    report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    assert "stem" not in [layer.name for layer in report.left_out]
    assert not torch.equal(stem, model.stem.weight)
    for old, new in zip(before, outputs(model), strict=True):
        assert relative_change(old, new) <= 1e-5


@pytest.mark.parametrize("name", sorted(STOPPED))
def test_operands_that_do_not_scale_along_stop_the_scale(name):
    model = OperandNetwork([name], 2, 0)
    before = outputs(model)
    report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    reasons = {layer.name: layer.reason for layer in report.left_out}
    assert STOPPED[name] in reasons["stem"]
    for old, new in zip(before, outputs(model), strict=True):
        assert relative_change(old, new) <= 1e-5


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4),
    fields=st.integers(2, 3),
    seed=st.integers(0, 1000),
)
def test_random_operands_keep_function_and_equivariance(names, fields, seed):
    model = OperandNetwork(names, fields, seed)
    before, error = outputs(model), equivariance_error(model, IMAGE).worst
    report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    for old, new in zip(before, outputs(model), strict=True):
        assert relative_change(old, new) <= 1e-5
    assert equivariance_error(model, IMAGE).worst <= max(1.5 * error, 1e-9)
    assert all(layer.reason for layer in report.left_out)


class Hooked(nn.Module):
    """A forward hook adds a learned shift between two layers, which AIMET's graph does not show."""

    def __init__(self):
        super().__init__()
        network = OperandNetwork(["scaled"], 2, 0)
        self.first, self.last = network.stem, network.last
        self.shift = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.first.register_forward_hook(lambda module, inputs, output: output + self.shift)
        self.eval()

    def forward(self, x):
        return self.last(self.first(x))


def test_a_forward_hook_is_seen():
    model = Hooked()
    with torch.no_grad():
        before = model(IMAGE)
        report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
        assert relative_change(before, model(IMAGE)) <= 1e-5
    assert [region.sources for region in report.regions] == [("first",)]
    assert not torch.equal(model.shift, torch.ones(1, 8, 1, 1))


class Deceiving(nn.Module):
    """Reads the values of an activation behind torch's back, so that no trace can show what it does."""

    def __init__(self):
        super().__init__()
        network = OperandNetwork(["scaled"], 2, 0)
        self.first, self.last = network.stem, network.last
        self.eval()

    def forward(self, x):
        x = self.first(x)
        return self.last(x * float(abs(x.detach().numpy()).mean()))


@pytest.mark.filterwarnings("ignore:Converting a tensor to a NumPy array")
def test_the_last_net_undoes_a_wrong_equalization_and_names_the_layer():
    model = Deceiving()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(EqualizationError, match="first layer at fault is `last`, which was scaled with"):
        equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
