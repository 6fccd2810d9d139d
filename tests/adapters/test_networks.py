"""Whole networks of both libraries: exported exactly, as symmetric as before, taken by AIMET and ONNX."""

from __future__ import annotations

import copy

import pytest
import torch
from equivariant_networks import NETWORKS, ContinuousNet, DenseNet, UNet, WideResNet
from library_kits import E2CNN, KITS

from eq_aimet import equalize_equivariant, equivariance_error, export_model, tie_encodings
from eq_aimet.adapters.libraries import package_of
from eq_aimet.symmetry.layers import is_layer

TURNS = [90.0, 180.0, 270.0]


@pytest.fixture(
    scope="module",
    params=[(cls, kit) for kit in KITS for cls in NETWORKS],
    ids=lambda parameter: f"{parameter[0].__name__} of {parameter[1]}",
)
def network(request):
    return build(*request.param)


def build(cls, kit):
    """Return a network with random variances, in eval mode."""
    torch.manual_seed(0)
    network = cls(kit)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.named_buffers():
            if "running_var" in name:
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        return network.train().eval()


@pytest.fixture(scope="module")
def image(network):
    return draw_image(network)


def draw_image(network):
    shape = (2, network.channels, network.size, network.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plain(network, image):
    return export_model(network, image)


def test_the_function_is_the_same(network, image, plain):
    assert not any(map(package_of, plain.modules()))
    with torch.no_grad():
        for x in (image, torch.cat((image, -image))):
            expected, actual = network(x), plain(x)
            assert float((expected - actual).abs().max()) <= 1e-6 * float(expected.abs().max())
            assert expected.std() > 0


def test_the_export_is_as_equivariant_as_the_source(network, image, plain):
    # Converting in place would reach the bases that e2cnn shares between all networks.
    source = equivariance_error(copy.deepcopy(network), image, elements=TURNS)
    export = equivariance_error(plain, image, elements=TURNS)
    assert export.worst <= max(1.001 * source.worst, 1e-12)  # the last digits are the processor's rounding
    assert export.worst < 1e-6


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


@pytest.fixture(scope="module")
def equalized(image, plain):
    model = copy.deepcopy(plain)
    return model, equalize_equivariant(model, dummy_input=image, high_bias_fold="off")


def test_equalization_changes_neither_the_function_nor_its_symmetry(image, plain, equalized):
    model, _ = equalized
    with torch.no_grad():
        before, after = (copy.deepcopy(m).double()(image.double()) for m in (plain, model))
    assert float((before - after).abs().max()) <= 1e-5 * float(before.abs().max())
    error = equivariance_error(plain, image, elements=TURNS).worst
    # A network without exact weights keeps its error up to the rounding of the scaled weights.
    assert equivariance_error(model, image, elements=TURNS).worst <= max(2.0 * error, 1e-10)


# ELU is not homogeneous: in the dense network most scales end there.
LEFT_OUT = {WideResNet: 0, DenseNet: 3, ContinuousNet: 0, UNet: 0}


def test_every_layer_is_equalized_or_left_out_for_a_reason(network, plain, equalized):
    report = equalized[1]
    names = [name for name, module in plain.named_modules() if is_layer(module)]
    assert sorted(layer.name for layer in report.layers) == sorted(names)
    assert len(report.left_out) == LEFT_OUT[type(network)]
    for layer in report.left_out:
        assert "ELU `layers." in layer.reason


def test_the_quantized_network_is_as_symmetric_as_its_fields_allow(network, image, equalized):
    from aimet_torch.quantsim import QuantizationSimModel

    model, _ = equalized
    sim = QuantizationSimModel(model, dummy_input=image)
    sim.compute_encodings(lambda quantized: quantized(image))
    tie_encodings(sim)
    with torch.no_grad():
        expected, actual = model(image), sim.model(image)
    assert 0.0 < float((expected - actual).abs().max() / expected.abs().max()) < 0.25
    error = equivariance_error(sim.model, image, elements=TURNS).worst
    if isinstance(network, ContinuousNet):
        # A quarter turn changes signs of a vector's components, and the grid of INT8 values is not symmetric.
        assert error < 0.05
    else:
        assert error == 0.0


@pytest.mark.parametrize("cls", NETWORKS, ids=lambda cls: cls.__name__)
def test_onnxruntime_runs_it(cls, tmp_path):
    import onnxruntime

    image = draw_image(cls)
    plain = export_model(build(cls, E2CNN), image)
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
        network = cls(E2CNN)
        plain = export_model(network, torch.randn(1, cls.channels, cls.size, cls.size))
        assert sum(type(module).__name__ == kind for module in plain.modules()) == count


def test_comparisons_of_shapes_do_not_stay_in_the_graph():
    enn, gspace = E2CNN.enn, E2CNN.c4

    class Joined(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.in_type = enn.FieldType(gspace, [gspace.trivial_repr])
            hidden = enn.FieldType(gspace, [gspace.regular_repr])
            self.first = enn.R2Conv(self.in_type, hidden, 3, padding=1)
            self.second = enn.R2Conv(hidden, hidden, 3, padding=1)

        def forward(self, x):
            x = self.first(enn.GeometricTensor(x, self.in_type))
            return enn.tensor_directsum([x, self.second(x)]).tensor

    x = torch.rand(2, 1, 9, 9)
    model = Joined().eval()
    plain = export_model(model, x[:1])

    assert [node.op for node in plain.graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]
    with torch.no_grad():
        assert torch.allclose(plain(x), model(x), atol=1e-6)
