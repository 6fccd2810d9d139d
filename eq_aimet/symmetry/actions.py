"""Whether a layer's weights have the symmetry that an action says."""

from __future__ import annotations

import torch

from eq_aimet.symmetry.blocks import Action, is_convolution, is_transposed

__all__ = ["has_action"]


def has_action(layer: torch.nn.Module, action: Action, tolerance: float = 1e-5) -> bool:
    """Return whether `action` maps the weights of a convolution onto themselves.

    Args:
        layer: A convolution; any other layer has every action.
        action: What a group element does to the layer.
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
    weight, groups = layer.weight, layer.groups
    assert isinstance(weight, torch.Tensor)
    assert isinstance(groups, int)
    weight = weight.detach()
    first, second = action.permutation_out, action.permutation_in
    if is_transposed(layer):
        first, second = second, first
    rows = torch.tensor(first)
    columns = torch.tensor(second).reshape(groups, -1)  # [groups, columns per group]
    height = len(rows) // groups
    # A group of channels moves as one: the columns are counted from the first one of the group they move to.
    moved = columns[torch.arange(len(rows)) // height] - (rows // height * columns.shape[1])[:, None]
    if moved.min() < 0 or moved.max() >= columns.shape[1]:
        return False
    turned = weight.flip(-1) if action.flip else weight
    if weight.dim() == 4:
        turned = torch.rot90(turned, action.turns, dims=(-2, -1))
    moved = moved.to(weight.device)
    difference = (weight[rows.to(weight.device)[:, None], moved] - turned).abs().max()
    return float(difference) <= tolerance * float(weight.abs().max())
