import copy
from functools import cache

import numpy as np
import pytest
import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.cross_layer_equalization import equalize_model
from aimet_torch.quantsim import QuantizationSimModel
from block_networks import Conventional, Network, norm, same, weights
from test_data_free_statistics import X, measured
from torch import nn

from eq_aimet import (
    calibrate_without_data,
    equalize_equivariant,
    equivariance_error,
    equivariant_hooks,
    tie_encodings,
)
from eq_aimet.aimet.output_statistics import output_statistics
from eq_aimet.aimet.simulation.sampling import linear_bound
from eq_aimet.errors import InvalidArgumentError

RANGE = (float(X.min()), float(X.max()))


@cache
def equalized(depthwise):
    model = measured(Network(depthwise))
    equalize_equivariant(model, dummy_input=X[:1])
    return model


def simulation(depthwise="channel", config=get_path_for_per_tensor_config):
    return QuantizationSimModel(equalized(depthwise), dummy_input=X[:1], config_file=config())


@cache
def untouched():
    """A simulation without encodings, for calls that leave it so."""
    return simulation()


def encodings(sim):
    return {
        name: tuple(quantizer.get_min().flatten().tolist() + quantizer.get_max().flatten().tolist())
        for name, quantizer in sim.model.named_modules()
        if hasattr(quantizer, "get_min") and quantizer.is_initialized()
    }


def ends(module, deviations):
    statistics = output_statistics(module)
    means, sigmas = np.array(statistics.means), np.array(statistics.deviations)
    return (means - deviations * sigmas).min(), (means + deviations * sigmas).max()


@pytest.mark.parametrize("deviations", [2.5, 6])
def test_ranges_come_from_the_statistics(deviations):
    sim = simulation()
    report = calibrate_without_data(sim, X[:1], input_range=RANGE, standard_deviations=deviations)
    ranges = {entry.name: entry for entry in report.ranges}
    # A projection, whose encoding is its own, and a convolution, whose encoding is that of its ReLU.
    lowest, highest = ends(sim.model.depthwise[3], deviations)
    step = (highest - lowest) / 255
    projection = ranges["depthwise.3"]
    assert projection.origin == "statistics"
    assert projection.lowest == pytest.approx(lowest, abs=step)
    assert projection.highest == pytest.approx(highest, abs=step)
    assert ranges["stem.2"].lowest == 0.0
    assert ranges["stem.2"].highest == pytest.approx(ends(sim.model.stem[0], deviations)[1], rel=1e-5)
    assert ranges["stem.2"].origin == "inputs"
    assert ranges["stem.0 (input)"].lowest == pytest.approx(RANGE[0], abs=0.05)
    assert ranges["stem.0 (input)"].highest == pytest.approx(RANGE[1], abs=0.05)
    # The sum reaches what both of its terms reach.
    body = ends(sim.model.residual.body[6], deviations)
    assert ranges["residual.add"].highest > highest
    assert ranges["residual.add"].highest <= (highest + body[1]) * 1.01
    assert report.bounded == ("head.3",)
    assert len(report.layers) == 7
    assert ranges["head.3"].origin == "bounds"
    assert set(ranges) == {str(line).split("  ")[0].strip() for line in str(report).splitlines()[2:]}
    assert report.to_dict()["standard_deviations"] == deviations


def test_encodings_do_not_depend_on_values_or_state():
    sim = simulation()
    state = torch.random.get_rng_state()
    calibrate_without_data(sim, X[:1], input_range=RANGE)
    assert torch.equal(torch.random.get_rng_state(), state)
    first = encodings(sim)
    assert "stem.0.param_quantizers.weight" in first
    torch.manual_seed(5)
    calibrate_without_data(sim, torch.full_like(X[:1], float("nan")), input_range=RANGE)
    assert encodings(sim) == first
    calibrate_without_data(sim, X[:1], input_range=RANGE, standard_deviations=3)
    assert encodings(sim) != first
    assert all("Substitute" not in type(module).__name__ for module in sim.model.modules())


@pytest.mark.parametrize("depthwise", ["channel", "field"])
def test_close_to_calibration_on_data(depthwise):
    sim = simulation(depthwise)
    reference = copy.deepcopy(sim)
    reference.compute_encodings(lambda model: model(X))
    calibrate_without_data(sim, X[:1], input_range=RANGE)

    def quality(simulated):
        exact = measured(Network(depthwise))(X).detach()
        with torch.no_grad():
            return float(10 * (exact.square().sum() / (simulated.model(X) - exact).square().sum()).log10())

    assert quality(sim) >= quality(reference) - 12
    assert quality(sim) >= 15


@pytest.mark.parametrize("config", [get_path_for_per_tensor_config, get_path_for_per_channel_config])
@pytest.mark.parametrize("depthwise", ["channel", "field"])
def test_turns_stay_exact(depthwise, config):
    sim = simulation(depthwise, config=config)
    calibrate_without_data(sim, X[:1], input_range=RANGE)
    tie_encodings(sim)
    assert equivariance_error(sim.model, X[:4]).worst == 0.0


def test_conventional_network_and_float_model_untouched():
    model = measured(Conventional())
    with equivariant_hooks():
        equalize_model(model, dummy_input=X[:1])
    before = weights(model)
    sim = QuantizationSimModel(model, dummy_input=X[:1])
    report = calibrate_without_data(sim, X[:1], input_range=RANGE)
    assert len(report.layers) == 4
    assert not report.bounded
    assert same(before, weights(model))
    assert torch.equal(sim.model.layers[0].weight, model.layers[0].weight)


def test_unfolded_batch_norms_and_constant_channels():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4, order=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[1].weight[1:].zero_()
        model[1].bias.copy_(torch.tensor([0.0, 1.0, 30.0, -2.0]))
    sim = QuantizationSimModel(model, dummy_input=X[:1])
    report = calibrate_without_data(sim, X[:1], input_range=RANGE)
    assert report.layers == ("1",)
    assert report.bounded == ("0", "3")
    assert {entry.name: entry.highest for entry in report.ranges}["2"] == pytest.approx(30.0, rel=1e-5)


def test_layer_without_statistics_ranges_over_its_bounds():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1, bias=False)).eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1))
    sim = QuantizationSimModel(model, dummy_input=X[:1])
    report = calibrate_without_data(sim, X[:1], standard_deviations=6)
    last = report.ranges[-1]
    # Both channels reach ±6, and so does their difference ±12, though not where both are highest or lowest.
    assert (last.name, last.origin) == ("2", "bounds")
    assert last.lowest == pytest.approx(-12, abs=0.1)
    assert last.highest == pytest.approx(12, abs=0.1)


def test_frozen_encodings_stay():
    sim = simulation()
    quantizer = sim.model.depthwise[3].output_quantizers[0]
    quantizer.set_range(-1.0, 1.0)
    quantizer.allow_overwrite(False)
    former = quantizer.get_min().item(), quantizer.get_max().item()
    calibrate_without_data(sim, X[:1], input_range=RANGE)
    assert (quantizer.get_min().item(), quantizer.get_max().item()) == former


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 3), (1, 6)),
        (nn.Conv2d(6, 4, 3, groups=2, bias=False), (1, 6, 3, 3)),
        (nn.ConvTranspose2d(6, 4, 1, groups=2), (1, 6, 3, 3)),
    ],
)
def test_bound_holds_and_is_reached(layer, shape):
    torch.manual_seed(0)
    low, high = -torch.rand(shape), torch.rand(shape)
    upper, lower = linear_bound(layer, high, low), linear_bound(layer, low, high)
    with torch.no_grad():
        outputs = layer(low + (high - low) * torch.rand(500, *shape[1:]))
        assert (outputs <= upper + 1e-6).all()
        assert (outputs >= lower - 1e-6).all()
        if isinstance(layer, nn.Linear):
            reached = layer(torch.where(layer.weight[1:2] > 0, high, low))[0, 1]
            assert reached == pytest.approx(float(upper[0, 1]), abs=1e-6)


class Failing(nn.Module):
    """Fails in the third of the forward passes with one image."""

    def __init__(self):
        super().__init__()
        self.layers = measured(Conventional())
        self.calls = -100
        self.eval()

    def forward(self, x):
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return self.layers(x)


def test_failure_on_the_way_leaves_the_simulation_as_it_was():
    sim = QuantizationSimModel(Failing(), dummy_input=X[:1])
    sim.model.calls = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        calibrate_without_data(sim, X[:1])
    assert not encodings(sim)  # those of the weights neither, which AIMET computes first
    sim.model.calls = -100
    sim.compute_encodings(lambda model: model(X))
    before = encodings(sim)
    sim.model.calls = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        calibrate_without_data(sim, X[:1], standard_deviations=1)
    assert encodings(sim) == before
    assert all("Substitute" not in type(module).__name__ for module in sim.model.modules())
    sim.model.calls = -100
    calibrate_without_data(sim, X[:1], standard_deviations=1)
    assert encodings(sim) != before


@pytest.mark.parametrize(
    ("arguments", "argument", "words"),
    [
        ({"standard_deviations": 0}, "standard_deviations", "expected a positive number"),
        ({"standard_deviations": float("nan")}, "standard_deviations", "received nan"),
        ({"standard_deviations": "6"}, "standard_deviations", "received '6'"),
        ({"input_range": (1.0, 0.0)}, "input_range", r"received \(1.0, 0.0\)"),
        ({"input_range": (0.0, float("nan"))}, "input_range", "two finite numbers"),
        ({"input_range": 1.0}, "input_range", "received 1.0"),
        ({"dummy_input": torch.ones(1, 4, 17, 17)}, "dummy_input", r"\(1, 4, 17, 17\) of torch.float32"),
        ({"dummy_input": None}, "dummy_input", "received NoneType without a tensor"),
    ],
)
def test_wrong_arguments_change_nothing(arguments, argument, words):
    sim = untouched()
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        calibrate_without_data(sim, **{"dummy_input": X[:1], **arguments})
    assert caught.value.argument == argument
    assert not encodings(sim)


def refused(sim, words):
    with pytest.raises(InvalidArgumentError, match=words) as caught:
        calibrate_without_data(sim, X[:1])
    assert caught.value.argument == "sim"


def test_wrong_simulations_are_refused():
    refused(Network(), "a Network; expected AIMET's QuantizationSimModel")
    elsewhere = measured(Conventional())
    equalize_model(elsewhere, dummy_input=X[:1])
    refused(
        QuantizationSimModel(elsewhere, dummy_input=X[:1]),
        "no layer has batch-norm statistics.*`equivariant_hooks`",
    )
    changed = simulation()
    with torch.no_grad():
        changed.model.depthwise[0].weight.mul_(2)
    refused(changed, "a layer `depthwise.0` whose weights were changed")
    assert not encodings(changed)
    broken = Conventional()
    with torch.no_grad():
        broken.layers[1].bias[0] = float("nan")
    refused(QuantizationSimModel(broken, dummy_input=X[:1]), "a layer `layers.1` whose statistics are not")
