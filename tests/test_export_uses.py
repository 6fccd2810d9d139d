"""The use of exported networks: torch traces them, ONNX stores them, AIMET simulates and equalizes them."""

from __future__ import annotations

import export_networks
import pytest
import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.cross_layer_equalization import CrossLayerScaling
from export_networks import assert_same, image, random_network

from eq_aimet import equivariance_error, export_model, layer_blocks
from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2
from eq_aimet.plain import Add, GroupMaxPool, Mask
from eq_aimet.symmetry import is_symmetric


@pytest.fixture(scope="module")
def plain():
    return export_model(random_network(export_networks.Classifier), image())


def test_tracing_by_torch(plain):
    with torch.no_grad():
        traced = torch.jit.trace(plain, image())
        assert torch.allclose(traced(image(3)), plain(image(3)), atol=1e-6)
        program = torch.export.export(plain, (image(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert torch.allclose(program.module()(image(3)), plain(image(3)), atol=1e-6)


def test_onnx(plain, tmp_path):
    import onnxruntime

    program = torch.onnx.export(
        plain, (image(),), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert {node.domain for node in program.model_proto.graph.node} <= {"", "ai.onnx"}
    (output,) = session.run(None, {session.get_inputs()[0].name: image(3).numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(output), plain(image(3)), atol=1e-5)


@pytest.mark.parametrize("name", ["Residual", "Sliced", "Classifier"])
def test_aimet_reads_and_simulates(name):
    from aimet_torch.meta.connectedgraph import ConnectedGraph
    from aimet_torch.nn import QuantizationMixin
    from aimet_torch.quantsim import QuantizationSimModel

    plain = export_model(random_network(getattr(export_networks, name)), image())
    graph = ConnectedGraph(plain, (image(),))
    modules = {operation.get_module() for operation in graph.get_all_ops().values()} - {None}
    leaves = {module for module in plain.modules() if not list(module.children())} - {plain}
    # AIMET's graph holds the operators of a module that has several.
    assert {module for module in leaves if not isinstance(module, GroupMaxPool)} <= modules
    sim = QuantizationSimModel(plain, dummy_input=image())
    sim.compute_encodings(lambda model: model(image()))
    quantized = {name for name, module in sim.model.named_modules() if isinstance(module, QuantizationMixin)}
    assert {name for name, module in plain.named_modules() if module in leaves} == quantized
    with torch.no_grad():
        expected, actual = plain(image()), sim.model(image())
    difference = float((expected - actual).abs().max() / expected.abs().max())
    assert 0.0 < difference < 0.2


@pytest.mark.parametrize(("group", "depthwise"), [(4, "channel"), (4, "field"), (8, "channel"), (8, "field")])
def test_mobilenets(group, depthwise):
    network = random_network(
        lambda: EquivariantMobileNetV2(width=group / 16, group=group, depthwise=depthwise, input_size=33)
    )
    x = torch.rand(2, 3, 33, 33)
    plain = export_model(network, x)
    assert_same(plain, network, x)
    tagged = [module for module in plain.modules() if layer_blocks(module) is not None]
    assert len(tagged) == 2 * len([m for m in plain.modules() if isinstance(m, torch.nn.Conv2d)]) == 104
    assert is_symmetric(plain)
    assert sum(isinstance(module, Add) for module in plain.modules()) == 10
    assert sum(isinstance(module, Mask) for module in plain.modules()) == 2
    assert float(equivariance_error(plain, x)) < 1e-10


def test_own_plain_modules_stay_whole_so_that_aimet_equalizes_conventional_networks():
    model, x = MobileNetV2(width=0.25, divisor=4, input_size=33).eval(), torch.rand(1, 3, 33, 33)

    plain = export_model(model, x)

    assert {name for name, module in plain.named_modules() if isinstance(module, Mask)} == {
        "input_mask",
        "head_mask",
    }
    fold_all_batch_norms(plain, None, dummy_input=x)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    sets = CrossLayerScaling.scale_model(plain, dummy_input=x)
    assert len(sets) >= 16
    changed = [name for name, value in plain.state_dict().items() if not torch.equal(value, before[name])]
    assert len(changed) > 40
