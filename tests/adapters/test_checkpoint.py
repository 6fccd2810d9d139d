"""State dicts that load in either mode, with filters that fit their weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from eq_aimet.adapters.e2cnn import ChannelwiseR2Conv, enn, gspaces, keep_weights_only

GSPACE = gspaces.Rot2dOnR2(4)
REGULAR = enn.FieldType(GSPACE, 2 * [GSPACE.regular_repr])


def _network(seed, *, hooked=True):
    torch.manual_seed(seed)
    network = enn.SequentialModule(enn.R2Conv(REGULAR, REGULAR, 3), ChannelwiseR2Conv(REGULAR, 3))
    for module in network.children():
        torch.nn.init.normal_(module.bias)
    if hooked:
        keep_weights_only(network)
    return network


def _outputs(network):
    x = torch.linspace(-1, 1, 8 * 49).reshape(1, 8, 7, 7)
    with torch.no_grad():
        return network(enn.GeometricTensor(x, network.in_type)).tensor


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("loaded_in", [True, False])
@pytest.mark.parametrize("saved_in", [True, False])
def test_either_mode_loads_what_either_mode_saved(saved_in, loaded_in, assign):
    source = _network(0).train(saved_in)
    target = _network(1).train(loaded_in)
    assert not torch.equal(_outputs(source), _outputs(target))
    incompatible = target.load_state_dict(source.state_dict(), assign=assign)
    assert (incompatible.missing_keys, incompatible.unexpected_keys) == ([], [])
    assert target.training is loaded_in
    assert torch.equal(_outputs(target), _outputs(source))
    assert torch.equal(_outputs(target.train(not loaded_in)), _outputs(source))


def test_keys_are_the_same_in_both_modes():
    network = _network(0)
    training, evaluation = set(network.train().state_dict()), set(network.eval().state_dict())
    assert training == evaluation
    assert not any(key.endswith(("filter", "expanded_bias")) for key in training)


@pytest.mark.parametrize("mode", [True, False])
def test_a_checkpoint_of_plain_e2cnn_loads(mode):
    plain = _network(0, hooked=False).eval()
    assert any(key.endswith("filter") for key in plain.state_dict())
    target = _network(1).train(mode)
    target.load_state_dict(plain.state_dict())
    assert torch.equal(_outputs(target), _outputs(plain))


def test_a_stale_filter_in_the_checkpoint_is_not_taken_over():
    source = _network(0).train()
    state = source.state_dict()
    state["0.filter"] = torch.zeros(8, 8, 3, 3)
    target = _network(1).eval()
    target.load_state_dict(state)
    assert torch.equal(_outputs(target), _outputs(source))


def test_without_it_e2cnn_refuses():
    plain = _network(0, hooked=False)
    with pytest.raises(RuntimeError, match="Missing key"):
        _network(1, hooked=False).eval().load_state_dict(plain.train().state_dict())


def test_a_checkpoint_that_lacks_weights_is_still_refused():
    state = _network(0).state_dict()
    del state["1.weights"]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "1.weights"'):
        _network(1).eval().load_state_dict(state)


def test_calling_twice_hooks_once():
    network = _network(0)
    keep_weights_only(network)
    assert len(network.get_submodule("0")._state_dict_hooks) == 1
    assert len(network.get_submodule("0")._load_state_dict_pre_hooks) == 1


def test_a_deep_copy_keeps_its_own_weights():
    source, clone = _network(0).train(), copy.deepcopy(_network(1))
    before = _outputs(source)
    clone.load_state_dict(_network(2).state_dict())
    assert torch.equal(_outputs(source), before)
    assert torch.equal(clone.get_submodule("0").weights, _network(2).get_submodule("0").weights)


def test_state_dicts_pickle():
    state = pickle.loads(pickle.dumps(_network(0).state_dict()))
    target = _network(1).eval()
    target.load_state_dict(state)
    assert torch.equal(_outputs(target), _outputs(_network(0)))
