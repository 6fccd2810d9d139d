"""Random networks and random sequences of the steps: the simulation stays exactly equivariant."""

import hypothesis
import pytest
import torch
from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
from aimet_torch.seq_mse import apply_seq_mse
from hypothesis import strategies
from networks import IMAGES, KINDS, SPACES, assert_tied, exported, network, run, simulate
from torch.utils.data import DataLoader

from eq_aimet import correct_bias, equivariance_error, equivariant_hooks, tie_encodings, tie_parameters

LOADER = DataLoader(IMAGES, batch_size=6)


def adaround(model, folder):
    parameters = AdaroundParameters(LOADER, 2, default_num_iterations=3, forward_fn=lambda m, x: m(x))
    with equivariant_hooks():
        return Adaround.apply_adaround(model, IMAGES[:1], parameters, str(folder), "any", default_param_bw=4)


def search_scales(sim):
    for module in sim.model.modules():
        if hasattr(module, "allow_overwrite"):
            module.allow_overwrite(True)
    with equivariant_hooks():
        apply_seq_mse(sim, LOADER, num_candidates=3)
    sim.compute_encodings(run)


def train(sim):
    with tie_parameters(sim):
        optimizer = torch.optim.AdamW(sim.model.parameters(), 1e-3)
        sim.model(IMAGES).square().mean().backward()
        optimizer.step()


STEPS = {
    "bias, measured": lambda sim: correct_bias(sim, run),
    "bias, computed": correct_bias,
    "SeqMSE": search_scales,
    "training": train,
    "orbits": tie_encodings,
    "blocks": lambda sim: tie_encodings(sim, over="blocks"),
}


SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "phases": [hypothesis.Phase.explicit, hypothesis.Phase.generate],
}
SEQUENCES = {
    "seed": strategies.integers(0, 1000),
    "granularity": strategies.sampled_from(["tensor", "channel"]),
    "bits": strategies.sampled_from([4, 8]),
    "rounded": strategies.booleans(),
    "steps": strategies.lists(strategies.sampled_from(sorted(STEPS)), min_size=1, max_size=3, unique=True),
}


def follow(model, folder, granularity, bits, rounded, steps):
    """Return the simulation of a model after the steps."""
    if rounded:
        model = adaround(model, folder)
    sim = simulate(model, granularity, bits)
    for step in steps:
        # Training changes the weights, so that the statistics of the batch norms may not hold any more.
        if step != "bias, computed" or "training" not in steps:
            STEPS[step](sim)
    tie_encodings(sim)
    return sim


@hypothesis.settings(max_examples=5, **SETTINGS)
@hypothesis.example(
    kind=(4, "channel"),
    seed=1,
    granularity="tensor",
    bits=4,
    rounded=True,
    steps=["SeqMSE", "bias, measured"],
)
@hypothesis.given(kind=strategies.sampled_from(KINDS), **SEQUENCES)
def test_any_sequence_of_steps_keeps_the_symmetry(tmp_path_factory, kind, seed, **sequence):
    sim = follow(network(*kind, seed=seed), tmp_path_factory.mktemp("rounded"), **sequence)
    assert_tied(sim)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0


@pytest.mark.parametrize("name", SPACES)
@hypothesis.settings(max_examples=2, **SETTINGS)
@hypothesis.example(
    seed=1,
    granularity="channel",
    bits=4,
    rounded=True,
    steps=["SeqMSE", "training", "bias, measured"],
)
@hypothesis.given(**SEQUENCES)
def test_any_sequence_of_steps_keeps_the_symmetry_of_an_export(tmp_path_factory, name, seed, **sequence):
    sim = follow(exported(name, seed), tmp_path_factory.mktemp("rounded"), **sequence)
    assert_tied(sim, layers=3)
    report = equivariance_error(sim.model, IMAGES[:3])
    assert len(report.errors) == (7 if name.endswith("D4") else 3)
    assert report.worst == 0.0
