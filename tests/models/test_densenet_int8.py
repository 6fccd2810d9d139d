"""Both DenseNets on the way to an INT8 file."""

from __future__ import annotations

import logging

import pytest
import torch
from densenet_samples import P4, P4M, noise_images, trained_network

from eq_aimet.models import DenseNet


@pytest.fixture
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(("arguments", "elements"), [(P4, 3), (P4M, 7)], ids=["P4", "P4M"])
def test_int8_files_are_bit_exact(arguments, elements, tmp_path):
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet import (
        assert_bit_exact,
        equalize_equivariant,
        equivariance_error,
        export_model,
        export_onnx,
        make_portable,
        tie_encodings,
        verify_onnx,
    )

    network = trained_network(**arguments).eval()
    images = noise_images(32)
    plain = export_model(network, images[:1])
    expected = plain(images)
    assert torch.allclose(expected, network(images), atol=1e-6 * float(expected.detach().abs().max()))
    assert not any(type(module).__module__.startswith("e2cnn") for module in plain.modules())

    report = equalize_equivariant(plain, dummy_input=images[:1])
    _check_equalization(report)
    assert torch.allclose(plain(images), expected, atol=1e-5 * float(expected.detach().abs().max()))
    assert float(equivariance_error(plain, images[:2])) < 1e-10

    sim = QuantizationSimModel(plain, dummy_input=images[:1])
    sim.compute_encodings(lambda quantized: quantized(images))
    tie_encodings(sim)
    make_portable(sim)
    assert float(equivariance_error(sim.model, images[:2])) == 0.0
    export_onnx(sim, images[:1], tmp_path / "model.onnx")
    verified = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, threads=(1,), reference_images=2)
    assert_bit_exact(verified)
    assert len(verified.elements) == elements
    assert verified.fidelity.reference_difference == 0
    assert verified.fidelity.sqnr_deployed > max(10, verified.fidelity.sqnr_sim - 1)


def _check_equalization(report):
    """Nothing is left out: all batch norms are folded, and each stage is one region of two writers."""
    assert len(report.norms) == 10
    assert all(norm.folded_into for norm in report.norms)
    assert len(report.layers) == 11
    assert report.left_out == ()
    readers = [(f"blocks.{n}.layer.0", f"blocks.{n + 1}.transition.1") for n in range(4)]
    writers = [("stem.0", "blocks.0.layer.0")]
    writers += [(f"blocks.{n}.transition.1", f"blocks.{n}.layer.0") for n in range(1, 5)]
    assert [region.sources for region in report.regions] == writers
    assert [region.sinks for region in report.regions] == [*readers, ("blocks.4.layer.0", "classifier")]
    assert all(region.scales.smallest < 0.9 * region.scales.largest for region in report.regions)


@pytest.mark.usefixtures("_quiet")
def test_the_conventional_network_goes_through_aimet_as_it_is():
    from aimet_torch.cross_layer_equalization import equalize_model
    from aimet_torch.quantsim import QuantizationSimModel

    import eq_aimet.aimet  # noqa: F401 (tells AIMET of the mask and the concatenation)

    network = trained_network(DenseNet).eval()
    images = noise_images(8)
    expected = network(images).detach()
    equalize_model(network, dummy_input=images[:1])
    sim = QuantizationSimModel(network, dummy_input=images[:1])
    sim.compute_encodings(lambda quantized: quantized(images))
    joined = [m for name, m in sim.model.named_modules() if name.endswith(".concat")]
    assert len(joined) == 5
    assert all(module.output_quantizers[0].is_initialized() for module in joined)  # it ran
    difference = (sim.model(images) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.1
