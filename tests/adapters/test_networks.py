"""Whole networks of e2cnn's kind: exported exactly, as symmetric as before, taken by AIMET and ONNX."""

from __future__ import annotations

import copy
import time

import module_catalogue
import pytest
import torch
from e2cnn_networks import NETWORKS, UNet, WideResNet

from eq_aimet import equivariance_error, export_model
from eq_aimet.adapters.e2cnn import enn
from eq_aimet.adapters.plugin import is_equivariant_module


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda cls: cls.__name__)
def network(request):
    torch.manual_seed(0)
    network = request.param()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.named_buffers():
            if "running_var" in name:
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        return network.train().eval()


@pytest.fixture(scope="module")
def image(network):
    shape = (2, network.channels, network.size, network.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plain(network, image):
    return export_model(network, image)


def test_the_function_is_the_same(network, image, plain):
    assert not any(map(is_equivariant_module, plain.modules()))
    with torch.no_grad():
        for x in (image, torch.cat((image, -image))):
            expected, actual = network(x), plain(x)
            assert float((expected - actual).abs().max()) <= 1e-6 * float(expected.abs().max())
            assert expected.std() > 0


def test_the_export_is_as_equivariant_as_the_source(network, image, plain):
    # Converting in place would reach the bases that e2cnn shares between all networks.
    source = equivariance_error(copy.deepcopy(network), image, elements=[90.0, 180.0, 270.0])
    export = equivariance_error(plain, image, elements=[90.0, 180.0, 270.0])
    assert export.worst <= max(source.worst, 1e-12)
    assert export.worst < 1e-6


@pytest.mark.filterwarnings("ignore")
def test_aimet_simulates_it(image, plain):
    from aimet_torch.nn import QuantizationMixin
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(plain, dummy_input=image)
    sim.compute_encodings(lambda model: model(image))
    quantized = [module for module in sim.model.modules() if isinstance(module, QuantizationMixin)]
    leaves = [module for module in plain.modules() if not list(module.children())]
    # AIMET passes over a dropout's `Identity`.
    assert len(quantized) == len([module for module in leaves if not isinstance(module, torch.nn.Identity)])
    with torch.no_grad():
        expected, actual = plain(image), sim.model(image)
    assert 0.0 < float((expected - actual).abs().max() / expected.abs().max()) < 0.25


@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_runs_it(image, plain, tmp_path):
    import onnxruntime

    program = torch.onnx.export(
        plain, (image,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    assert {node.domain for node in program.model_proto.graph.node} <= {"", "ai.onnx"}
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    x = torch.cat((image, -image[:1]))
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = plain(x)
    assert float((expected - torch.from_numpy(output)).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_skips_and_sums_are_modules():
    for cls, kind, count in ((UNet, "Concat", 2), (WideResNet, "Add", 4)):
        torch.manual_seed(0)
        network = cls()
        plain = export_model(network, torch.randn(1, cls.channels, cls.size, cls.size))
        assert sum(type(module).__name__ == kind for module in plain.modules()) == count


def test_export_is_not_slower_than_e2cnns_own():
    """e2cnn exports sequences only: a deep one of them, module by module."""
    fields = module_catalogue.regular(module_catalogue.C8, 6)
    layers = [
        layer
        for _ in range(6)
        for layer in (enn.R2Conv(fields, fields, 3, padding=1), enn.InnerBatchNorm(fields), enn.ReLU(fields))
    ]
    model = enn.SequentialModule(*layers)
    x = torch.randn(1, fields.size, 5, 5)

    def seconds(function):
        best = float("inf")
        for _ in range(3):
            model.train()
            start = time.process_time()
            function()
            best = min(best, time.process_time() - start)
        return best

    assert seconds(lambda: export_model(model, x)) <= 1.5 * seconds(model.export) + 0.1
