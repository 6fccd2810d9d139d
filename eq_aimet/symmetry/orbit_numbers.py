"""The numbering of a layer's orbits: an orbit is the weights that exact elements map onto each other."""

from __future__ import annotations

from functools import lru_cache

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.blocks import LayerBlocks

__all__ = ["first_members", "orbit_index"]


def orbit_index(
    shape: tuple[int, ...], blocks: LayerBlocks, *, groups: int = 1, transposed: bool = False
) -> torch.Tensor:
    """Return the number of the orbit to which each weight of a layer belongs.

    Args:
        shape: The weight's shape: (out, in/groups, k, k), or (in, out/groups, k, k) if `transposed`, or
            (out, in).
        blocks: The layer's blocks and actions.
        groups: The convolution's groups.
        transposed: Whether the layer is a transposed convolution.

    Returns:
        An int64 tensor of the given shape. Orbits are numbered 0, 1, … in the order of their first weight.

    Example:
        >>> from eq_aimet.symmetry import LayerBlocks, orbit_index, regular_actions
        >>> actions = regular_actions([1], [4], order=4, kernel_size=3)
        >>> orbits = orbit_index((4, 1, 3, 3), LayerBlocks((1,), (4,), actions))
        >>> orbits[0, 0].tolist(), orbits[1, 0].tolist()
        ([[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[2, 5, 8], [1, 4, 7], [0, 3, 6]])
        >>> int(orbits.max()) + 1
        9
    """
    return _orbit_index(tuple(shape), blocks, groups, transposed).to(torch.int64, copy=True)


@lru_cache(maxsize=32)
def _orbit_index(shape: tuple[int, ...], blocks: LayerBlocks, groups: int, transposed: bool) -> torch.Tensor:
    count = torch.Size(shape).numel()
    dtype = torch.int32 if count < 2**31 else torch.int64  # int32 needs half the memory
    positions = torch.arange(count, dtype=dtype).reshape(shape)
    labels = positions.flatten()
    changed = bool(blocks.actions)
    while changed:
        before = labels
        for action in blocks.actions:
            labels = _smallest_in_cycle(labels, _image(positions, action, groups, transposed).flatten())
        # One action reaches all of its powers at once. Several actions need more than one round.
        changed = len(blocks.actions) > 1 and not torch.equal(labels, before)
    # The label of an orbit is its smallest place. The orbit is numbered at this place.
    numbers = torch.cumsum(labels == positions.flatten(), 0, dtype=dtype) - 1
    return numbers[labels].reshape(shape)


def _smallest_in_cycle(labels: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return, at each place, the smallest label on its cycle under a permutation of the places.

    After step n a place has seen the labels of 2ⁿ places in a row. Once no label changes, the rows of 2ⁿ
    places cover the whole cycle.
    """
    while True:
        smallest = torch.minimum(labels, labels[image])
        if torch.equal(smallest, labels):
            return labels
        labels, image = smallest, image[image]


def first_members(orbits: torch.Tensor) -> torch.Tensor:
    """Return the place of each orbit's first weight in the flattened weight, an int64 tensor.

    Example:
        >>> first_members(torch.tensor([[0, 1], [1, 2]])).tolist()
        [0, 1, 3]
    """
    flat = orbits.flatten()
    places = torch.arange(len(flat), device=flat.device)
    first = places.new_zeros(int(flat.max()) + 1)
    return first.scatter_reduce(0, flat, places, "amin", include_self=False)


def _image(positions: torch.Tensor, action: Action, groups: int, transposed: bool) -> torch.Tensor:
    """Return, at each weight's place, the place to which `action` moves this weight."""
    first, second = action.permutation_out, action.permutation_in
    if transposed:
        first, second = second, first
    rows = torch.tensor(first)  # [rows]
    columns = torch.tensor(second).reshape(groups, -1)  # [groups, columns per group]
    group_of_row = torch.arange(len(rows)) // (len(rows) // groups)
    first_columns = rows // (len(rows) // groups) * columns.shape[1]  # of the group that the row moves to
    moved = columns[group_of_row] - first_columns[:, None]  # [rows, columns]
    if moved.min() < 0 or moved.max() >= columns.shape[1]:
        raise InvalidArgumentError(
            "actions",
            received="an action that moves a channel out of its group",
            expected=f"actions that map each of the {groups} groups of the convolution onto one group",
            remedy="Make each of the convolution's groups a whole number of blocks.",
        )
    targets = positions[rows[:, None], moved]  # [rows, columns, ...]
    if positions.dim() == 4:
        # weight[target] = turn(weight): the place (y, x) of the source lands where the inverse turn finds it.
        targets = torch.rot90(targets, -action.turns, dims=(-2, -1))
        if action.flip:
            targets = targets.flip(-1)
    return targets
