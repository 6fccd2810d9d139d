"""Tying the encodings of a block: the INT8 network is exactly equivariant; nothing half done is left."""

import copy
import json
import pickle

import pytest
import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.quantization.affine import GroupedBlockQuantizeDequantize, QuantizeDequantize
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet import layer_blocks, symmetrize, tag_blocks, tie_encodings
from eq_aimet.aimet.simulation.tied_encodings import TiedEncoding
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain import Add, GroupMaxPool, Mask
from eq_aimet.symmetry import LayerBlocks, assert_equivariant, equivariance_error, regular_actions

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning"),
    pytest.mark.filterwarnings("ignore:All modules in `aimet_torch.v2`:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*QuantizerBase._allow_overwrite is deprecated:DeprecationWarning"),
]

FIELDS = 3


class PlainNetwork(torch.nn.Module):
    """A C_N network with the layers that an export makes, tied by `symmetrize`; its input is 1×11×11."""

    def __init__(self, order: int) -> None:
        super().__init__()
        channels = FIELDS * order
        generator = torch.Generator().manual_seed(3)
        y, x = torch.meshgrid(torch.arange(11) - 5, torch.arange(11) - 5, indexing="ij")
        self.mask = Mask((x.square() + y.square() <= 30).float())
        self.lifting = torch.nn.Conv2d(1, channels, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.depthwise = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = torch.nn.Conv2d(channels, channels, 1)
        self.add = Add()
        self.relu_out = torch.nn.ReLU()
        self.pool = GroupMaxPool((order,) * FIELDS)
        self.average = torch.nn.AdaptiveAvgPool2d(1)
        self.flatten = torch.nn.Flatten()
        self.linear = torch.nn.Linear(FIELDS, 4)
        regular = [order] * FIELDS
        for layer, blocks_in in ((self.lifting, [1]), (self.depthwise, regular), (self.pointwise, regular)):
            torch.nn.init.normal_(layer.weight, generator=generator)
            actions = regular_actions(blocks_in, regular, order=order, kernel_size=layer.kernel_size[0])
            tag_blocks(layer, blocks_in, regular, actions=actions)
        tag_blocks(self.linear, 1)
        torch.nn.init.normal_(self.linear.weight, generator=generator)
        symmetrize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        lifted = self.relu(self.lifting(self.mask(images)))
        summed = self.relu_out(self.add(lifted, self.pointwise(self.depthwise(lifted))))
        return self.linear(self.flatten(self.average(self.pool(summed))))


IMAGES = torch.rand(8, 1, 11, 11, generator=torch.Generator().manual_seed(1))
CONFIGURATIONS = {"tensor": get_path_for_per_tensor_config, "channel": get_path_for_per_channel_config}


def simulate(model: torch.nn.Module, granularity: str = "channel", images: torch.Tensor = IMAGES):
    """Return the INT8 simulation of a copy of `model`, with its encodings computed."""
    torch.manual_seed(0)
    sim = QuantizationSimModel(
        copy.deepcopy(model).eval(),
        dummy_input=images,
        config_file=CONFIGURATIONS[granularity](),
        default_param_bw=8,
        default_output_bw=8,
    )
    sim.compute_encodings(lambda quantized: quantized(images))
    return sim


def simulate_layer(layer: torch.nn.Module, shape: tuple[int, ...], blocks: tuple[int, int]):
    tag_blocks(layer, *blocks)
    return simulate(torch.nn.Sequential(layer), images=torch.rand(shape))


def encodings(sim) -> dict[str, list[float]]:
    return {
        f"{name}.{key}": [
            value for parameter in quantizer.parameters() for value in parameter.detach().flatten().tolist()
        ]
        for name, module in sim.named_qmodules()
        for key, quantizer in module.param_quantizers.items()
        if quantizer is not None
    }


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("order", [4, 8])
def test_the_int8_network_is_exactly_equivariant(order, granularity):
    model = PlainNetwork(order)
    sim = simulate(model, granularity)
    tie_encodings(sim)
    assert equivariance_error(sim.model, IMAGES).worst == 0.0
    # It is the quantized network that was judged, not the one in floating point.
    with torch.no_grad():
        assert not torch.allclose(sim.model(IMAGES), model(IMAGES), atol=1e-6)


def test_per_channel_encodings_of_c8_differ_within_a_block_until_they_are_tied():
    sim = simulate(PlainNetwork(8))
    scale = sim.model.lifting.param_quantizers["weight"].get_scale().flatten().unflatten(0, (FIELDS, 8))
    assert all(len(block.unique()) == 2 for block in scale)
    largest = sim.model.lifting.weight.abs().flatten(1).amax(1).unflatten(0, (FIELDS, 8)).amax(1)
    tie_encodings(sim, over="blocks")
    scale = sim.model.lifting.param_quantizers["weight"].get_scale().flatten().unflatten(0, (FIELDS, 8))
    assert all(len(block.unique()) == 1 for block in scale)
    torch.testing.assert_close(scale[:, 0] * 127.5, largest, rtol=1e-2, atol=0.0)


def test_a_block_takes_the_widest_range_of_its_channels():
    layer = torch.nn.Conv2d(16, 16, 1, bias=False)
    tag_blocks(layer, 8)  # without `symmetrize`: the weights of a block have different ranges
    images = torch.rand(4, 16, 5, 5)
    sim = simulate(torch.nn.Sequential(layer), images=images)
    before = encodings(sim)["0.weight"]
    assert len(set(before[:16])) == 16
    tie_encodings(sim, over="blocks")
    after = encodings(sim)["0.weight"]
    assert len(set(after[:16])) == 2
    assert after[0] == min(before[:8])
    assert after[8] == min(before[8:16])
    assert after[16] == max(before[16:24])


def test_quarter_turns_of_c8_are_exact_even_before_the_encodings_are_tied():
    sim = simulate(PlainNetwork(8))
    assert equivariance_error(sim.model, IMAGES).worst == 0.0
    # One encoding of an orbit alone makes the difference.
    quantizer = sim.model.lifting.param_quantizers["weight"]
    with torch.no_grad():
        quantizer.min[0] *= 2
        quantizer.max[0] *= 2
    assert equivariance_error(sim.model, IMAGES).worst > 1e-3
    tie_encodings(sim)
    assert equivariance_error(sim.model, IMAGES).worst == 0.0


def test_the_report_says_what_was_tied_and_why_others_were_not():
    sim = simulate(PlainNetwork(8))
    report = tie_encodings(sim)
    assert report.tied == tuple(
        TiedEncoding(f"{name}.weight", 24, orbits)
        for name, orbits in (("lifting", 6), ("depthwise", 6), ("pointwise", 3))
    )
    assert report.untouched == (("linear", "its blocks are single channels"),)
    assert str(report).splitlines()[0] == "lifting.weight: 24 encodings became 6"
    assert json.loads(json.dumps(report.to_dict()))["tied"][0]["blocks"] == 6
    assert all(tied.blocks == 3 for tied in tie_encodings(sim, over="blocks").tied)


def test_per_tensor_encodings_and_tied_ones_stay_bit_for_bit():
    sim = simulate(PlainNetwork(8), "tensor")
    before = encodings(sim)
    report = tie_encodings(sim)
    assert encodings(sim) == before
    assert not report.tied
    assert ("lifting", "one encoding for the whole parameter") in report.untouched

    sim = simulate(PlainNetwork(8))
    tie_encodings(sim)
    once = encodings(sim)
    tie_encodings(sim)
    assert encodings(sim) == once


def test_c4_is_tied_already():
    sim = simulate(PlainNetwork(4))
    before = encodings(sim)
    tie_encodings(sim)
    assert encodings(sim) == before


def test_asymmetric_encodings_cover_every_channel_of_a_block():
    layer = torch.nn.Conv2d(2, 4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0, 0.0], [0.0, 3.0], [-5.0, 1.0], [0.0, 2.0]])[..., None, None])
    sim = simulate_layer(layer, (1, 2, 3, 3), (1, 2))
    quantizer = QuantizeDequantize((4, 1, 1, 1), 8, symmetric=False)
    quantizer.set_range(
        layer.weight.amin((1, 2, 3), keepdim=True), layer.weight.amax((1, 2, 3), keepdim=True)
    )
    sim.model[0].param_quantizers["weight"] = quantizer
    tie_encodings(sim, over="blocks")
    assert quantizer.min.flatten().tolist() == [-1.0, -1.0, -5.0, -5.0]
    assert quantizer.max.flatten().tolist() == [3.0, 3.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("layer", "shape", "blocks", "counts"),
    [
        (torch.nn.Conv1d(4, 8, 3), (1, 4, 7), (4, 4), (8, 2)),
        (torch.nn.Linear(4, 8), (1, 4), (4, 2), (8, 4)),
        (torch.nn.ConvTranspose2d(4, 8, 3), (1, 4, 5, 5), (4, 4), (8, 2)),
        (torch.nn.Conv2d(8, 8, 3, groups=2), (1, 8, 5, 5), (4, 4), (8, 2)),
        # The groups of a transposed convolution share their encodings: 4 for 8 channels, in blocks of 2.
        (torch.nn.ConvTranspose2d(8, 8, 3, groups=2, bias=False), (1, 8, 5, 5), (4, 2), (4, 2)),
    ],
)
def test_all_kinds_of_layers(layer, shape, blocks, counts):
    sim = simulate_layer(layer, shape, blocks)
    (entry,) = tie_encodings(sim, over="blocks").tied
    assert (entry.channels, entry.blocks) == counts
    scale = sim.model[0].param_quantizers["weight"].get_scale()
    assert scale.shape[1 if isinstance(layer, torch.nn.ConvTranspose2d) else 0] == counts[0]
    per_block = scale.flatten().unflatten(0, (counts[1], -1))
    assert (per_block == per_block[:, :1]).all()
    assert len(per_block[:, 0].unique()) == counts[1]


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


@pytest.mark.parametrize(
    "carry",
    [
        lambda sim, path: sim,
        lambda sim, path: copy.deepcopy(sim),
        lambda sim, path: pickle.loads(pickle.dumps(sim)),
    ],
    ids=["conversion", "deepcopy", "pickle"],
)
def test_blocks_survive(carry, tmp_path):
    model = PlainNetwork(8)
    sim = carry(simulate(model), tmp_path)
    for name in ("lifting", "depthwise", "pointwise", "linear"):
        assert layer_blocks(getattr(sim.model, name)) == layer_blocks(getattr(model, name)) is not None
    assert len(tie_encodings(sim).tied) == 3
    original = sim.model.lifting.get_original_module()
    assert type(original) is torch.nn.Conv2d
    assert layer_blocks(original) == layer_blocks(model.lifting)
