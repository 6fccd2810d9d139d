"""Tying the encodings of a block: the INT8 network is exactly equivariant; nothing half done is left."""

import copy
import json
import pickle

import pytest
import torch
from aimet_torch.quantization.affine import QuantizeDequantize
from tied_networks import FIELDS, IMAGES, PlainNetwork, encodings, simulate, simulate_layer

from eq_aimet import layer_blocks, tag_blocks, tie_encodings
from eq_aimet.aimet.simulation.tied_encodings import TiedEncoding
from eq_aimet.symmetry import equivariance_error


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
