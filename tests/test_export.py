"""`export_model` on networks as users write them: the result is exact, plain, and fit for what comes next."""

from __future__ import annotations

import copy
import itertools
import pickle

import export_networks
import pytest
import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.cross_layer_equalization import CrossLayerScaling
from export_networks import HIDDEN, IMAGE, SPACE, convolve

from eq_aimet import equivariance_error, export_model, layer_blocks
from eq_aimet.adapters.e2cnn import enn
from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2
from eq_aimet.plain import Add, Concat, GroupMaxPool, Mask, Subtract
from eq_aimet.symmetry import is_symmetric

LIFTED = (
    "Residual",
    "ResidualInPlace",
    "ChangedInPlace",
    "ReluInPlace",
    "Nested",
    "Reused",
    "Scaled",
    "Sliced",
    "UnregisteredConvolution",
)


def random_network(build, seed=0):
    """Return a network in eval mode with random weights and statistics."""
    torch.manual_seed(seed)
    network = build()
    with torch.no_grad():
        for name, value in itertools.chain(network.named_parameters(), network.named_buffers()):
            if "running_var" in name:
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point() and getattr(value, "requires_grad", False):
                value.normal_()
        return network.train().eval()


def image(batch=2, size=9, seed=1):
    return torch.randn(batch, 1, size, size, generator=torch.Generator().manual_seed(seed))


def assert_same(plain, network, x):
    with torch.no_grad():
        expected, actual = network(x.clone()), plain(x)
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def class_names(plain):
    return {type(module).__module__.partition(".")[0] for module in plain.modules()}


@pytest.fixture(scope="module")
def network():
    return random_network(export_networks.Classifier)


@pytest.fixture(scope="module")
def plain(network):
    return export_model(network, image())


@pytest.mark.parametrize("name", LIFTED)
def test_networks_of_users(name):
    network = random_network(getattr(export_networks, name))
    state = {key: value.clone() for key, value in network.state_dict().items()}
    plain = export_model(network, image())
    assert_same(plain, network, image())
    assert_same(plain, network, image(batch=5, seed=2))
    assert class_names(plain) <= {"torch", "eq_aimet"}
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_fields_then_torch(network, plain):
    assert_same(plain, network, image())
    assert_same(plain, network, image(batch=1))


def test_a_sequence_of_users_is_exported_by_its_own_names():
    network = random_network(lambda: enn.SequentialModule(convolve(IMAGE), enn.GroupPooling(HIDDEN)))
    plain = export_model(network, image())
    names = [name for name, module in plain.named_modules() if not list(module.children())]
    assert sorted(names) == ["0.0", "0.1", "0.2", "1"]
    with torch.no_grad():
        assert torch.equal(plain(image()), network(enn.GeometricTensor(image(), IMAGE)).tensor)


@pytest.mark.parametrize("module", [enn.R2Conv(IMAGE, HIDDEN, 3), enn.ReLU(IMAGE), enn.IdentityModule(IMAGE)])
def test_one_module_alone(module):
    module.eval()
    plain = export_model(module, image())
    assert class_names(plain) == {"torch"}
    with torch.no_grad():
        assert torch.equal(plain(image()), module(enn.GeometricTensor(image(), IMAGE)).tensor)


def test_several_inputs_and_outputs_typed_and_plain():
    network = random_network(export_networks.TwoInputs)
    field = torch.randn(2, HIDDEN.size, 9, 9)
    typed = enn.GeometricTensor(field, HIDDEN)
    plain = export_model(network, (image(), typed))
    with torch.no_grad():
        expected, (actual, others) = network(image(), typed), plain(image(), field)
    assert torch.equal(actual, expected[0].tensor)
    assert torch.equal(others["pooled"], expected[1]["pooled"])
    assert others["shape"] == 9


def test_default_arguments_are_the_defaults(network):
    plain = export_model(network, (image(), torch.tensor(1.0)))
    with torch.no_grad():
        assert torch.equal(plain(image(), torch.tensor(1.0)), network(image(), 1.0))
        assert not torch.equal(plain(image(), torch.tensor(1.0)), network(image()))


def test_operations_become_modules_that_aimet_quantizes():
    kinds = {
        "Residual": {"add": Add},
        "ResidualInPlace": {"add": Add},
        "Reused": {"subtract": Subtract},
        "Sliced": {"concat": Concat},
    }
    for name, expected in kinds.items():
        plain = export_model(random_network(getattr(export_networks, name)), image())
        assert {key: type(plain.get_submodule(key)) for key in expected} == expected
    plain = export_model(random_network(export_networks.Classifier), image())
    assert type(plain.relu) is torch.nn.ReLU


def test_a_reused_module_stays_one_module():
    network = random_network(export_networks.Reused)
    plain = export_model(network, image())
    calls = [node for node in plain.graph.nodes if node.target == "block.0"]
    assert len(calls) == 2
    assert len([module for module in plain.modules() if isinstance(module, torch.nn.Conv2d)]) == 2


def test_nothing_is_shared_with_the_source():
    for name in (*LIFTED, "Classifier"):
        network = random_network(getattr(export_networks, name))
        plain = export_model(network, image())
        pointers = [
            {
                value.untyped_storage().data_ptr()
                for value in model.state_dict(keep_vars=True).values()
                if value.numel()
            }
            for model in (network, plain)
        ]
        assert not pointers[0] & pointers[1]


def test_copies_and_files(network, plain, tmp_path):
    x = image()
    with torch.no_grad():
        expected = plain(x)
        torch.save(plain, tmp_path / "model.pt")
        for twin in (
            copy.deepcopy(plain),
            pickle.loads(pickle.dumps(plain)),
            torch.load(tmp_path / "model.pt", weights_only=False),
        ):
            assert torch.equal(twin(x), expected)
            assert (
                layer_blocks(twin.get_submodule("lift.0"))
                == layer_blocks(plain.get_submodule("lift.0"))
                is not None
            )


def test_safetensors(network, plain, tmp_path):
    from safetensors.torch import load_file, save_file

    save_file(
        {key: value.contiguous() for key, value in plain.state_dict().items()}, tmp_path / "model.safetensors"
    )
    other = export_model(random_network(export_networks.Classifier, seed=5), image())
    assert not torch.equal(other(image()), plain(image()))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(image()), plain(image()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tracing_by_torch(plain):
    with torch.no_grad():
        traced = torch.jit.trace(plain, image())
        assert torch.allclose(traced(image(3)), plain(image(3)), atol=1e-6)
        program = torch.export.export(plain, (image(),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        assert torch.allclose(program.module()(image(3)), plain(image(3)), atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
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


@pytest.mark.filterwarnings("ignore")
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


def test_a_network_in_training_is_exported_as_it_will_be_in_eval_mode():
    network = random_network(export_networks.Classifier).train()
    plain = export_model(network, image())
    assert network.training
    assert all(module.training for module in network.modules())
    assert_same(plain, network.eval(), image())


def test_export_works_without_gradients_and_gives_trainable_weights(network):
    with torch.no_grad():
        plain = export_model(network, image())
    assert all(parameter.requires_grad for parameter in plain.parameters())
    plain(image()).sum().backward()
    assert all(parameter.grad is not None for parameter in plain.parameters())


def test_a_copy_of_the_source_exports_the_same(network, plain):
    again = export_model(copy.deepcopy(network), image())
    assert list(again.state_dict()) == list(plain.state_dict())
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.state_dict().values(), plain.state_dict().values(), strict=True)
    )


def test_blocks_are_those_of_the_fields(plain):
    assert layer_blocks(plain.get_submodule("lift.0")).blocks_out == (4, 4)
    assert layer_blocks(plain.get_submodule("lift.0")).actions[0].turns == 1
    assert layer_blocks(plain.linear) is None
    assert SPACE.regular_repr.size == 4


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
