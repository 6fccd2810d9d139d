"""The check whether a layer's weights have the symmetry that an action describes."""

from __future__ import annotations

import torch

from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.layers import is_convolution, is_transposed
from eq_aimet.symmetry.orbits import ROUNDING

__all__ = ["has_action"]


def has_action(layer: torch.nn.Module, action: Action, tolerance: float = ROUNDING) -> bool:
    """Return whether `action` maps the weights of a convolution onto themselves.

    Args:
        layer: A convolution; any other layer has every action.
        action: The effect of a group element on the layer.
        tolerance: The difference that counts as rounding, relative to the largest weight.

    Example:
        >>> convolution = torch.nn.Conv2d(1, 1, 3)
        >>> has_action(convolution, Action((0,), (0,), turns=1))
        False
        >>> _ = torch.nn.init.ones_(convolution.weight)
        >>> has_action(convolution, Action((0,), (0,), turns=1))
        True
    """
    if not is_convolution(layer):
        return True
    weight, groups = layer.weight.detach(), layer.groups
    first, second = action.permutation_out, action.permutation_in
    if is_transposed(layer):
        first, second = second, first
    moved = _move_channels(weight, torch.tensor(first), torch.tensor(second), groups)
    if moved is None:
        return False
    turned = weight.flip(-1) if action.flip else weight
    if weight.dim() == 4 and action.turns % 4:
        turned = torch.rot90(turned, action.turns, dims=(-2, -1))
    # Equality is the common case, and testing it is faster than measuring the difference.
    if torch.equal(moved, turned):
        return True
    return float((moved - turned).abs().max()) <= tolerance * float(weight.abs().max())


def _move_channels(
    weight: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, groups: int
) -> torch.Tensor | None:
    """Return the weight with rows and columns permuted, or `None` if a channel moves out of its group."""
    if groups == 1:
        return weight[rows.to(weight.device)].index_select(1, columns.to(weight.device))
    columns = columns.reshape(groups, -1)  # [groups, columns per group]
    height = len(rows) // groups
    # A group of channels moves as one: the columns are counted from the first one of the group they move to.
    within = columns[torch.arange(len(rows)) // height] - (rows // height * columns.shape[1])[:, None]
    if within.min() < 0 or within.max() >= columns.shape[1]:
        return None
    return weight[rows.to(weight.device)[:, None], within.to(weight.device)]
