"""Exact invariance of the equivariant MobileNetV2, and its checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch

from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2

pytestmark = pytest.mark.exactness

SIZE = 23  # grids 11, 5 and 3: both paddings occur


def _trained(make, seed=0, **arguments):
    """A network whose batch norms have seen data and whose weights have been moved by gradients."""
    torch.manual_seed(seed)
    network = make(width=0.5, input_size=SIZE, **arguments)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.momentum = 1.0  # two steps are too few for a running average
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x = torch.rand(4, 3, SIZE, SIZE)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    return network


def _error(network, x):
    """The largest change of the logits under quarter turns, relative to their spread over the images."""
    with torch.no_grad():
        expected = network(x)
        turned = [network(x.rot90(quarters, (2, 3))) for quarters in (1, 2, 3)]
    spread = (expected - expected.mean(0)).abs().max()
    assert spread > 1e-3 * expected.abs().max()
    return max((logits - expected).abs().max().item() for logits in turned) / spread.item()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("depthwise", ["channel", "field"])
@pytest.mark.parametrize("group", [4, 8])
def test_quarter_turns_change_nothing_in_float64(group, depthwise, training):
    network = _trained(EquivariantMobileNetV2, group=group, depthwise=depthwise).double().train(training)
    x = torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64)
    assert _error(network, x) <= 1e-10


def test_half_turns_change_nothing_with_c2():
    network = _trained(EquivariantMobileNetV2, group=2).double().eval()
    x = torch.rand(2, 3, SIZE, SIZE, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network(x), network(x.rot90(2, (2, 3))), rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [(MobileNetV2, {}), (EquivariantMobileNetV2, {"group": 1}), (EquivariantMobileNetV2, {"group": 3})],
)
def test_networks_without_quarter_turns_do_change(make, arguments):
    network = _trained(make, **arguments).double().eval()
    assert _error(network, torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64)) > 1e-3


@pytest.mark.parametrize("depthwise", ["channel", "field"])
@pytest.mark.parametrize("loaded_in", [True, False])
@pytest.mark.parametrize("saved_in", [True, False])
def test_a_checkpoint_of_either_mode_loads_in_either(saved_in, loaded_in, depthwise, tmp_path):
    source = _trained(EquivariantMobileNetV2, seed=0, group=4, depthwise=depthwise)
    target = _trained(EquivariantMobileNetV2, seed=1, group=4, depthwise=depthwise).train(loaded_in)
    torch.save(source.train(saved_in).state_dict(), tmp_path / "network.pt")
    target.load_state_dict(torch.load(tmp_path / "network.pt"))
    assert target.training is loaded_in
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert source.eval()(x).isfinite().all()
        if not loaded_in:
            # straight after loading, with the filters that loading built
            assert torch.equal(target(x), source(x))
        assert torch.equal(target.eval()(x), source(x))


def test_the_state_dict_has_no_filters():
    network = EquivariantMobileNetV2(width=0.5, group=4, input_size=SIZE)
    keys = list(network.train().state_dict())
    assert list(network.eval().state_dict()) == keys
    assert not [key for key in keys if key.endswith((".filter", ".expanded_bias"))]


@pytest.mark.parametrize("training", [True, False])
def test_deep_copies_are_independent(training):
    network = _trained(EquivariantMobileNetV2, group=4).train(training)
    clone = copy.deepcopy(network).double()
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.allclose(clone(x.double()).float(), network(x), atol=1e-4)
        assert network(x).dtype is torch.float32


def test_building_after_a_conversion_gives_float32():
    EquivariantMobileNetV2(width=0.5, group=4, input_size=SIZE).double()
    network = EquivariantMobileNetV2(width=0.5, group=4, input_size=SIZE)
    assert network(torch.rand(2, 3, SIZE, SIZE)).dtype is torch.float32


def test_eval_filters_carry_no_history():
    network = _trained(EquivariantMobileNetV2, group=4).eval()
    assert network(torch.rand(1, 3, SIZE, SIZE)).grad_fn is not None  # the classifier learns
    filters = [buffer for name, buffer in network.named_buffers() if name.endswith(".filter")]
    assert len(filters) == 52
    assert not any(kept.requires_grad for kept in filters)
    assert torch.is_grad_enabled()
