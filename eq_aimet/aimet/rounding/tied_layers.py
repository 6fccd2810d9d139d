"""Checks that the weights of a model are still tied, before a step relies on the ties."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.orbits import layer_asymmetry

__all__ = ["check_still_tied", "has_ties"]


def has_ties(model: torch.nn.Module) -> bool:
    """Return whether the group ties weights of a layer of `model`."""
    return any((blocks := layer_blocks(module)) is not None and blocks.actions for module in model.modules())


def check_still_tied(argument: str, model: torch.nn.Module, path: str) -> None:
    """Check that the weights, biases and running statistics of each orbit in `model` are equal.

    Args:
        argument: The name of the argument of the public function that was called.
        model: A network, or the model of a simulation.
        path: The caller's expression for the model, e.g. `sim.model`.

    Raises:
        InvalidArgumentError: If the values of a layer differ within an orbit.
    """
    for name, layer in model.named_modules():
        difference = layer_asymmetry(layer)
        if difference > 0.0:
            raise InvalidArgumentError(
                argument,
                received=f"a layer `{name or type(layer).__name__}` whose tied values differ by "
                f"{difference:.1e} of the largest one",
                expected="equal values in each orbit",
                remedy=f"Call `symmetrize({path})` first; training or rounding without ties lost them.",
            )
