"""`export_model` on networks as users write them: the result is exact, plain, and fit for what comes next."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import export_networks
import pytest
import torch
from e2cnn import nn as enn
from export_networks import HIDDEN, IMAGE, SPACE, assert_same, class_names, convolve, image, random_network

from eq_aimet import export_model, layer_blocks
from eq_aimet.plain import Add, Concat, Subtract

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


def test_an_activation_that_runs_twice_gets_a_module_for_each_run():
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 3, 1)
            self.relu, self.relu_2 = torch.nn.ReLU(), torch.nn.Tanh()

        def forward(self, x):
            return self.relu_2(self.relu(self.second(self.relu(self.first(x)))))

    network = Block().eval()
    plain = export_model(network, image())
    kinds = {name: type(module) for name, module in plain.named_children()}
    assert kinds["relu"] is kinds["relu_3"] is torch.nn.ReLU
    assert kinds["relu_2"] is torch.nn.Tanh
    assert plain.relu is not plain.relu_3
    assert_same(plain, network, image(batch=3))


def test_two_threads_that_export_at_once_get_what_each_gets_alone():
    networks = [
        random_network(getattr(export_networks, name)) for name in ("Classifier", "Residual", "Sliced")
    ]
    alone = [export_model(network, image()).state_dict() for network in networks]
    stop = threading.Event()

    def run():
        outputs = []
        while not stop.is_set():
            outputs.append(networks[0](image()))
        return outputs

    with ThreadPoolExecutor(4) as pool:
        busy = pool.submit(run)  # a thread that computes meanwhile sees no symbols
        exported = list(pool.map(lambda network: export_model(network, image()), 3 * networks))
        stop.set()
        outputs = busy.result()
    for place, plain in enumerate(exported):
        assert_same(plain, networks[place % 3], image(batch=3))
        expected = alone[place % 3]
        assert list(plain.state_dict()) == list(expected)
        assert all(torch.equal(value, expected[name]) for name, value in plain.state_dict().items())
    assert all(type(output) is torch.Tensor and torch.equal(output, outputs[0]) for output in outputs)


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
