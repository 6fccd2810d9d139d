"""`make_portable`: weights in [-64, 63], the device's biases, no ties, and what it refuses."""

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import SIZE, Residual, simulate, varied_images
from onnx import numpy_helper
from torch import nn

from eq_aimet import export_onnx, make_portable, verify_onnx
from eq_aimet.aimet.simulation.export_readiness import integer_weight
from eq_aimet.errors import InvalidArgumentError


@pytest.fixture
def sim():
    return simulate(Residual())


def tensors(sim):
    return {key: value.clone() for key, value in sim.model.state_dict().items() if torch.is_tensor(value)}


def quantizers(sim):
    return {
        name: (module.weight, module.param_quantizers["weight"])
        for name, module in sim.model.named_modules()
        if hasattr(module, "param_quantizers") and "weight" in module.param_quantizers
    }


def test_all_weights_keep_to_the_limits_and_use_them(sim):
    report = make_portable(sim)

    weights = quantizers(sim)
    assert len(report.limited) == len(weights) == 6
    for entry in report.limited:
        weight, quantizer = weights[entry.name.removesuffix(".weight")]
        integers = integer_weight(weight, quantizer)
        assert integers.min() >= -64
        assert integers.max() <= 63
        assert integers.abs().max() == entry.largest_after >= 62
        assert entry.largest_before >= 126
        # what the sim computes is what the integers say
        assert torch.equal(quantizer(weight), integers * quantizer.get_scale())


def test_a_second_call_changes_nothing():
    sim = simulate(Residual(), images=pixels())
    make_portable(sim, pixels()[:1])
    before = tensors(sim)

    report = make_portable(sim, pixels()[:1])

    assert (report.limited, report.rounded_biases, report.moved_inputs) == ((), (), ())
    assert {reason for _, reason in report.untouched} == {"its integers keep to [-64, 63] already"}
    assert all(torch.equal(value, before[name]) for name, value in tensors(sim).items())


def test_the_outputs_stay_close(sim):
    images = varied_images(4)
    with torch.no_grad():
        before = sim.model(images)
        make_portable(sim)
        after = sim.model(images)

    assert 0 < float((after - before).abs().max()) < 0.05 * float(before.abs().max())


def test_what_the_encoding_clipped_stays_clipped(sim):
    weight, quantizer = quantizers(sim)["stem.0"]
    quantizer.set_range(quantizer.get_min() / 4, quantizer.get_max() / 4)
    before = quantizer(weight).detach()

    (entry,) = [entry for entry in make_portable(sim).limited if entry.name == "stem.0.weight"]

    assert entry.clipped > 0
    integers = integer_weight(weight, quantizer)
    assert integers.min() >= -64
    assert integers.max() == 63
    change = (quantizer(weight) - before).detach().abs().max()
    assert change <= 0.76 * quantizer.get_scale().detach()  # half a step of each grid


def pixels(seed=0):
    """Images of 8-bit pixels in [0, 1], of which none is brighter than 250."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 251, (16, 3, SIZE, SIZE), generator=generator)
    values[0] = 250
    return values / 255


def device_difference(sim, folder):
    """The SQNR in dB of the deployed file against the simulation."""
    export_onnx(sim, pixels()[:1], folder / "model.onnx")
    return verify_onnx(folder / "model.onnx", sim, pixels(1), runs=1).fidelity.sqnr_to_sim


def test_the_biases_are_those_that_the_device_adds(sim, tmp_path):
    images = varied_images(4)
    report = make_portable(sim, images[:1])

    assert len(report.rounded_biases) == 6
    export_onnx(sim, images[:1], tmp_path / "model.onnx", storage="plain")
    held = {
        constant.name: numpy_helper.to_array(constant)
        for constant in onnx.load(tmp_path / "model.onnx").graph.initializer
    }
    for name in report.rounded_biases:
        deployed = held[f"{name}_q"].astype(np.float64) * held[f"{name}_scale"]
        bias = sim.model.get_parameter(name).detach().double().numpy()
        np.testing.assert_allclose(bias, deployed, rtol=1e-6, atol=0)
    assert "6 biases: rounded" in str(report)


def test_pixels_halfway_between_integers_are_moved_off(tmp_path):
    sim = simulate(Residual(), images=pixels())
    quantizer = sim.model.mask.input_quantizers[0]
    steps = pixels() / quantizer.get_scale().detach()
    assert int(((steps - steps.floor() - 0.5).abs() < 1e-4).sum()) > 100
    before = quantizer.get_max().item()

    report = make_portable(sim, pixels()[:1])

    assert report.moved_inputs == ("mask.input_quantizers.0",)
    steps = pixels() / quantizer.get_scale().detach()
    assert int(((steps - steps.floor() - 0.5).abs() < 1e-4).sum()) == 0
    assert before < quantizer.get_max().item() < 1.016 * before
    assert device_difference(sim, tmp_path) > 45
    assert "mask.input_quantizers.0: widened" in str(report)


def test_lossless_pixels_stay_so():
    images = pixels()
    images[0] = 1.0  # the range is [0, 1], in which each pixel is an integer
    sim = simulate(Residual(), images=images)

    report = make_portable(sim, images[:1])

    assert report.moved_inputs == ()
    quantizer = sim.model.mask.input_quantizers[0]
    assert torch.allclose(quantizer(images).detach(), images, rtol=0, atol=1e-6)


def test_a_frozen_input_is_named_and_nothing_changed():
    sim = simulate(Residual(), images=pixels())
    quantizer = sim.model.mask.input_quantizers[0]
    quantizer.allow_overwrite(False)
    before = tensors(sim)

    with pytest.raises(InvalidArgumentError, match=r"a frozen encoding of mask\.input_quantizers\.0"):
        make_portable(sim)

    assert all(torch.equal(value, before[name]) for name, value in tensors(sim).items())


def test_an_input_that_does_not_fit_is_refused_and_nothing_changed(sim):
    before = tensors(sim)

    with pytest.raises(InvalidArgumentError, match=r"`dummy_input`: received \(1, 5, 9, 9\)"):
        make_portable(sim, torch.rand(1, 5, 9, 9))

    assert all(torch.equal(value, before[name]) for name, value in tensors(sim).items())


def test_no_encodings():
    from aimet_torch.quantsim import QuantizationSimModel

    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    sim = QuantizationSimModel(model, dummy_input=torch.rand(1, 3, 5, 5))

    with pytest.raises(InvalidArgumentError, match=r"no encoding of .* Call `sim.compute_encodings"):
        make_portable(sim)


def test_no_sim():
    with pytest.raises(InvalidArgumentError, match="received a Sequential; expected AIMET's Quant"):
        make_portable(nn.Sequential())


def test_a_frozen_encoding_is_named_and_nothing_changed(sim):
    layers = quantizers(sim)
    layers["classifier"][1].allow_overwrite(False)
    before = tensors(sim)

    with pytest.raises(InvalidArgumentError, match=r"a frozen encoding of classifier\.weight"):
        make_portable(sim)

    assert all(torch.equal(value, before[name]) for name, value in tensors(sim).items())


def test_asymmetric_encodings_are_refused(sim):
    quantizers(sim)["stem.0"][1].symmetric = False

    with pytest.raises(InvalidArgumentError, match=r"an asymmetric encoding of stem\.0\.weight"):
        make_portable(sim)


def test_the_report_names_each_weight(sim):
    report = make_portable(sim)

    assert str(report).splitlines()[0].split() == ["weight", "before", "after", "clipped"]
    assert report.to_dict()["limited"][0].keys() == {"name", "largest_before", "largest_after", "clipped"}
    assert {entry["name"] for entry in report.to_dict()["limited"]} >= {"stem.0.weight", "classifier.weight"}
