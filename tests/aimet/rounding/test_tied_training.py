"""Training inside `tie_parameters`: the values of an orbit stay equal, as if one value were trained."""

import copy
import pickle

import pytest
import torch
from aimet_torch.bn_reestimation import reestimate_bn_stats
from block_networks import Conventional, Network
from networks import IMAGES, KINDS, assert_tied, network, run, simulate
from torch.utils.data import DataLoader

from eq_aimet import equivariance_error, is_symmetric, symmetrize, tag_blocks, tie_parameters
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry import regular_actions, weight_orbits
from eq_aimet.symmetry.orbit_numbers import first_members
from eq_aimet.symmetry.orbits import orbit_spreads

TARGETS = torch.randn(len(IMAGES), 2, generator=torch.Generator().manual_seed(3))


def trainable(order, depthwise="channel"):
    """Return a network with batch norms, whose channels are tied as an export ties them."""
    model = Network(depthwise, order=order)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            blocks = [order] * (layer.num_features // order)
            tag_blocks(layer, blocks, actions=regular_actions(blocks, blocks, order=order))
    return model


OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=1e-3),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 1e-3),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, 1e-3),
    "Rprop": lambda parameters: torch.optim.Rprop(parameters, 1e-3),
    "NAdam": lambda parameters: torch.optim.NAdam(parameters, 1e-3),
}


def step(model, optimizer, *, accumulate=1):
    optimizer.zero_grad()
    for images, targets in zip(IMAGES.chunk(accumulate), TARGETS.chunk(accumulate), strict=True):
        torch.nn.functional.mse_loss(model(images), targets).backward()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_orbits_stay_equal_after_each_step(name):
    model = trainable(8, "field").train()
    before = copy.deepcopy(model)
    optimizer = OPTIMIZERS[name](model.parameters())  # made before the ties
    with tie_parameters(model):
        for _ in range(4):
            step(model, optimizer, accumulate=2)
            assert is_symmetric(model)
    for layer, former in zip(model.modules(), before.modules(), strict=True):
        if isinstance(layer, torch.nn.Conv2d):
            assert not torch.equal(layer.weight, former.weight)


def test_without_ties_the_orbits_drift_apart():
    model = Network().train()
    step(model, OPTIMIZERS["SGD"](model.parameters()))
    assert not is_symmetric(model, tolerance=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_training_one_value_per_orbit(name):
    layer = network(4, "channel").stem[0].double()
    images = IMAGES.double()
    orbits = weight_orbits(layer).flatten()
    shared = layer.weight.detach().flatten()[first_members(orbits)].clone().requires_grad_()
    target = torch.randn(12, 12, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tied_optimizer, optimizer = OPTIMIZERS[name]([layer.weight]), OPTIMIZERS[name]([shared])
    with tie_parameters(layer):
        for _ in range(5):
            tied_optimizer.zero_grad()
            (layer(images) - target).square().mean().backward()
            tied_optimizer.step()
    for _ in range(5):
        optimizer.zero_grad()
        weight = shared[orbits].reshape(layer.weight.shape)
        output = torch.nn.functional.conv2d(images, weight, layer.bias, stride=2, padding=1)
        (output - target).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.flatten()[first_members(orbits)], shared, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("order", "depthwise"), KINDS)
def test_quantization_aware_training_learns_tied_encodings(order, depthwise):
    sim = simulate(network(order, depthwise))
    former = {name: value.detach().clone() for name, value in sim.model.named_parameters()}
    with tie_parameters(sim) as ties:
        optimizer = torch.optim.Adam(sim.model.parameters(), 1e-3)
        for _ in range(3):
            step(sim.model, optimizer)
            assert is_symmetric(sim.model)
    assert "stem.0.param_quantizers.weight.max" in ties.names
    changed = {name for name, value in sim.model.named_parameters() if not torch.equal(value, former[name])}
    assert any(name.endswith("0.weight") for name in changed)
    assert any(name.endswith("param_quantizers.weight.max") for name in changed)
    assert_tied(sim)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0


def test_mixed_precision_and_a_skipped_step():
    sim = simulate(network(4, "channel"))
    optimizer = torch.optim.SGD(sim.model.parameters(), 1e-3)
    with tie_parameters(sim):
        for scale in (1.0, float("inf")):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = torch.nn.functional.mse_loss(sim.model(IMAGES).float(), TARGETS)
            optimizer.zero_grad()
            (loss * scale).backward()
            if scale == 1.0:
                optimizer.step()
            assert is_symmetric(sim.model)


def test_batch_norms_are_trained_on_whole_fields():
    model = trainable(4).double().train()
    twin, former = copy.deepcopy(model), copy.deepcopy(model)
    images = IMAGES.double()
    with tie_parameters(model), tie_parameters(twin):
        model(images)
        twin(torch.rot90(images, 1, (-2, -1)))
        assert is_symmetric(model)
    for first, second in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)
    assert not torch.equal(model.stem[1].running_mean, former.stem[1].running_mean)


def test_statistics_of_a_tied_norm_are_torchs_over_the_field():
    model = torch.nn.Sequential(trainable(4).stem[1]).train()
    images = torch.randn(5, 12, 7, 7)
    reference = torch.nn.BatchNorm3d(3)
    reference.running_mean.copy_(model[0].running_mean[::4])
    reference.running_var.copy_(model[0].running_var[::4])
    with torch.no_grad():
        reference.weight.copy_(model[0].weight[::4])
        reference.bias.copy_(model[0].bias[::4])
    with tie_parameters(model):
        output = model(images)
    expected = reference(images.unflatten(1, (3, 4))).flatten(1, 2)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[0].running_mean[::4], reference.running_mean)
    torch.testing.assert_close(model[0].running_var[::4], reference.running_var)


def test_aimets_reestimation_of_batch_norms_keeps_the_ties():
    model = trainable(8)
    before = model.stem[1].running_mean.clone()
    with tie_parameters(model):
        reestimate_bn_stats(model, DataLoader(IMAGES, batch_size=4), num_batches=3)
    assert is_symmetric(model)
    assert not torch.equal(before, model.stem[1].running_mean)


def test_afterwards_the_parameters_are_ordinary():
    model = network(4, "channel")
    ties = tie_parameters(model)
    ties.remove()
    step(model, torch.optim.SGD(model.parameters(), 0.1))
    assert not is_symmetric(model)
    assert all("forward" not in vars(module) for module in model.modules())


def test_a_training_that_is_interrupted_leaves_tied_ordinary_parameters():
    model = network(4, "channel")

    def train():
        with tie_parameters(model), torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter)  # half a step of an optimizer of one's own
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert is_symmetric(model)
    step(model, torch.optim.SGD(model.parameters(), 0.1))
    assert not is_symmetric(model)


def test_steps_without_an_optimizer_are_tied_at_the_next_forward_pass():
    model = network(4, "channel")
    with tie_parameters(model):
        with torch.no_grad():
            model.stem[0].weight.add_(torch.randn_like(model.stem[0].weight))
        model(IMAGES)
        assert is_symmetric(model)


def test_a_layer_that_is_unfrozen_later_is_tied_too():
    model = network(4, "channel")
    layer = model.residual.body[0]
    layer.weight.requires_grad_(False)
    with tie_parameters(model):
        layer.weight.requires_grad_(True)
        torch.nn.functional.mse_loss(model(IMAGES), TARGETS).backward()
        assert not orbit_spreads(layer.weight.grad, weight_orbits(layer)).any()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (7, "received a int"),
        (Conventional(), "no layer carries actions.*without `tie_parameters`"),
    ],
)
def test_wrong_arguments_are_named(wrong, text):
    with pytest.raises(InvalidArgumentError, match=f"`model_or_sim`: .*{text}|{text}"):
        tie_parameters(wrong)


def test_ties_that_were_lost_before_are_named():
    sim = simulate(network(4, "channel"))
    with torch.no_grad():
        sim.model.residual.body[0].weight[0, 0] += 0.1
    with pytest.raises(InvalidArgumentError, match=r"`residual.body.0` whose tied.*symmetrize\(sim.mod"):
        tie_parameters(sim)
    symmetrize(sim.model)
    tie_parameters(sim).remove()
    run(sim.model)


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_that_is_made_inside_is_an_ordinary_model(carry):
    model = trainable(4)
    with tie_parameters(model):
        twin = carry(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        assert equivariance_error(model, IMAGES[:2]).worst < 1e-10  # judges a copy, too
    torch.testing.assert_close(twin(IMAGES), trainable(4)(IMAGES))
    step(twin.train(), torch.optim.SGD(twin.parameters(), 0.1))
    assert not is_symmetric(twin)
