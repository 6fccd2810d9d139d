"""What `tie_encodings` refuses or leaves alone, and what it says of it."""

import pytest
import torch
from aimet_torch.quantization.affine import GroupedBlockQuantizeDequantize, QuantizeDequantize
from aimet_torch.quantsim import QuantizationSimModel
from tied_networks import CONFIGURATIONS, IMAGES, PlainNetwork, encodings, simulate, simulate_layer

from eq_aimet import tie_encodings
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry import LayerBlocks, assert_equivariant, equivariance_error


def test_arguments_that_are_no_simulation_are_named():
    for wrong in (torch.nn.Conv2d(1, 1, 1), None):
        with pytest.raises(InvalidArgumentError, match=r"`sim`: received a .*QuantizationSimModel"):
            tie_encodings(wrong)


def test_a_model_without_blocks_is_named():
    sim = simulate(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3)))
    with pytest.raises(
        InvalidArgumentError, match=r"no layer carries rotation blocks.*export_model.*tag_blocks"
    ):
        tie_encodings(sim)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_encodings_that_are_not_computed_are_named(granularity):
    model = PlainNetwork(4).eval()
    sim = QuantizationSimModel(model, dummy_input=IMAGES, config_file=CONFIGURATIONS[granularity]())
    with pytest.raises(InvalidArgumentError, match=r"no encoding of lifting.weight.*sim.compute_encodings"):
        tie_encodings(sim)


def test_frozen_encodings_are_respected_and_nothing_is_half_done():
    sim = simulate(PlainNetwork(8))
    sim.model.pointwise.param_quantizers["weight"].allow_overwrite(False)
    sim.model.depthwise.param_quantizers["weight"].allow_overwrite(False)
    before = encodings(sim)
    with pytest.raises(
        InvalidArgumentError, match=r"frozen encodings of depthwise.weight.*a block.*allow_overwrite\(True\)"
    ):
        tie_encodings(sim, over="blocks")
    assert encodings(sim) == before
    # The channels of an orbit have one range as they come, so that nothing is to be written.
    tie_encodings(sim)
    assert encodings(sim) == before
    sim.model.depthwise.param_quantizers["weight"].allow_overwrite(True)
    # Pointwise layers of C8 are tied as they come: all eight elements are exact for them.
    tie_encodings(sim, over="blocks")
    assert_equivariant(sim.model, IMAGES, tolerance=0.0)


@pytest.mark.parametrize(
    "quantizer",
    [
        QuantizeDequantize((24, 3, 1, 1), 8, symmetric=True, block_size=(1, 8, 1, 1)),
        GroupedBlockQuantizeDequantize(
            (24, 3, 1, 1), 4, True, 8, block_size=(1, 8, 1, 1), block_grouping=(1, 3, 1, 1)
        ),
        QuantizeDequantize((24, 4, 1, 1), 8, symmetric=True, block_size=(1, 6, 1, 1)),  # cuts fields
        QuantizeDequantize((1, 24, 1, 1), 8, symmetric=True),
    ],
    ids=["blockwise", "lpbq", "across fields", "input channels"],
)
def test_encodings_that_divide_the_input_channels_are_tied_too(quantizer):
    sim = simulate(PlainNetwork(8))
    random = torch.rand(quantizer.shape, generator=torch.Generator().manual_seed(0)) + 2.0
    quantizer.set_range(-random, random)
    sim.model.pointwise.param_quantizers["weight"] = quantizer
    assert equivariance_error(sim.model, IMAGES).worst > 0.0
    tie_encodings(sim)
    assert equivariance_error(sim.model, IMAGES).worst == 0.0


def test_encodings_of_another_shape_are_named():
    sim = simulate(PlainNetwork(8))
    before = encodings(sim)["lifting.weight"]
    quantizer = QuantizeDequantize((5, 1, 1, 1), 8, symmetric=True)
    quantizer.set_range(torch.full((5, 1, 1, 1), -1.0), torch.full((5, 1, 1, 1), 1.0))
    sim.model.pointwise.param_quantizers["weight"] = quantizer
    with pytest.raises(InvalidArgumentError, match=r"shape \(5, 1, 1, 1\) of pointwise.weight.*equal parts"):
        tie_encodings(sim)
    assert encodings(sim)["lifting.weight"] == before


def test_layers_without_actions_keep_their_encodings_unless_blocks_are_tied():
    sim = simulate_layer(torch.nn.Conv2d(4, 8, 3), (1, 4, 5, 5), (4, 4))
    before = encodings(sim)
    report = tie_encodings(sim)
    assert encodings(sim) == before
    assert not report.tied
    assert report.untouched[0][1].startswith("it carries no actions")
    assert 'over="blocks"' in str(report)


@pytest.mark.parametrize("over", ["fields", None, 8])
def test_other_rules_are_named(over):
    with pytest.raises(InvalidArgumentError, match=r'`over`: received .*"orbits" or "blocks"'):
        tie_encodings(simulate(PlainNetwork(4)), over=over)


def test_layers_that_are_not_quantized_are_reported():
    sim = simulate(PlainNetwork(8))
    sim.model.pointwise.param_quantizers["weight"] = None
    assert ("pointwise", "its parameters are not quantized") in tie_encodings(sim).untouched


def test_blocks_of_other_channels_are_named():
    sim = simulate(PlainNetwork(8))
    sim.model.lifting.eq_aimet_blocks = LayerBlocks((1,), (8,))
    with pytest.raises(InvalidArgumentError, match=r"on lifting.*blocks that add up"):
        tie_encodings(sim)
