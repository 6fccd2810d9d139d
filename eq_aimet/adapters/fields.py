"""From field types to rotation blocks and the actions of the exact group elements, for every library."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from eq_aimet.adapters.libraries import library_of
from eq_aimet.adapters.library import GroupElement
from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.blocks import LayerBlocks, tag_blocks
from eq_aimet.symmetry.orbits import remove_rounding
from eq_aimet.symmetry.weight_symmetry import has_action

__all__ = ["describe_layer", "exact_elements", "field_sizes", "tag_with_types"]

logger = logging.getLogger(__name__)

_MAP_SIZE = 5  # side of the index map that shows how a group element turns the grid

# A group element, the quarter turns that it does to a square grid, and whether it mirrors the grid.
_ElementOnGrid = tuple[Any, int, bool]


def field_sizes(field_type: Any) -> tuple[int, ...]:
    """Return the sizes of the fields of `field_type` in channel order: the blocks."""
    return tuple(int(representation.size) for representation in field_type.representations)


def describe_layer(in_type: Any, out_type: Any, *, kernel_size: int = 1) -> LayerBlocks:
    """Return the blocks of a layer from `in_type` to `out_type`, and the actions of the exact elements.

    Args:
        in_type: The field type of the layer's input.
        out_type: The field type of the layer's output.
        kernel_size: The side k of the layer's k×k kernel. With k = 1, every element maps the grid onto
            itself.
    """
    actions = []
    elements = exact_elements(in_type.gspace, kernel_size > 1)
    for element, turns, flip in elements:
        permutations = [_permutation(field_type, element) for field_type in (in_type, out_type)]
        if permutations[0] is not None and permutations[1] is not None:
            actions.append(Action(permutations[0], permutations[1], turns, flip))
    return LayerBlocks(
        field_sizes(in_type),
        field_sizes(out_type),
        tuple(actions),
        has_all_actions=len(actions) == len(elements),
    )


def tag_with_types(
    layer: torch.nn.Module, in_type: Any, out_type: Any, *, kernel_size: int = 1
) -> torch.nn.Module:
    """Put the blocks of its field types on a fresh plain layer, tie its orbits, and return this layer.

    A library expands a filter by a matrix product, whose rounding depends on the processor, so the copies of
    one weight may differ in their last bits. This function gives all copies the same bits.

    The layer gets only the actions under which its weights are symmetric. Two faults of e2cnn remove
    actions. First, e2cnn treats two spaces as equal if only their mirror axes differ, and it reuses the
    filters of the first space for the second space. Second, e2cnn mirrors the stencils of `R2Diffop` along
    the perpendicular axis.
    """
    blocks = describe_layer(in_type, out_type, kernel_size=kernel_size)
    actions = tuple(action for action in blocks.actions if has_action(layer, action))
    if len(actions) < len(blocks.actions):
        logger.warning(
            "A %s over %s is not symmetric under %s, which its types declare; it carries the other actions "
            "only.",
            type(layer).__name__,
            in_type.gspace.name,
            ", ".join(str(action) for action in blocks.actions if action not in actions),
        )
    has_all = blocks.has_all_actions and len(actions) == len(blocks.actions)
    # An empty sequence of actions says that only the identity is exact, `None` that the actions are unknown.
    known = actions if actions or has_all else None
    tag_blocks(layer, blocks.blocks_in, blocks.blocks_out, actions=known)
    remove_rounding(layer)
    return layer


def exact_elements(gspace: Any, turns_grid: bool) -> tuple[_ElementOnGrid, ...]:
    """Return (element, quarter turns, flip) of generators of the elements that map the grid onto itself.

    Args:
        gspace: The space of the layer's types.
        turns_grid: Whether the kernel is larger than 1×1. If it is not, every element is exact and the grid
            stays as it is.
    """
    # e2cnn treats two spaces with different mirror axes as equal, so the axis belongs to the key.
    return _exact_elements(gspace, getattr(gspace, "axis", None), turns_grid)


@lru_cache(maxsize=64)
def _exact_elements(gspace: Any, axis: float | None, turns_grid: bool) -> tuple[_ElementOnGrid, ...]:
    library = library_of(gspace)
    assert library is not None
    generators: dict[bool, _ElementOnGrid] = {}
    for element in library.group_elements(gspace):
        action = _grid_action(gspace, element) if turns_grid else (0, False)
        if action is not None:
            # The first rotation and the first reflection generate all elements.
            generators.setdefault(element.is_reflection, (element.value, *action))
    return tuple(generators.values())


def _grid_action(gspace: Any, element: GroupElement) -> tuple[int, bool] | None:
    """Return (quarter turns, flip) if `element` maps a square grid of odd size onto itself, else `None`."""
    library = library_of(gspace)
    assert library is not None
    grid = np.arange(_MAP_SIZE**2, dtype=float).reshape(_MAP_SIZE, _MAP_SIZE)
    moved = library.move_image(gspace, element, grid)
    for flip in (False, True):
        for turns in range(4):
            if np.allclose(np.rot90(grid[:, ::-1] if flip else grid, turns), moved, atol=1e-4):
                return turns, flip
    return None


def _permutation(field_type: Any, element: Any) -> tuple[int, ...] | None:
    """Return where `element` moves each channel of `field_type`, or `None` if a field is not permuted."""
    moved: list[int] = []
    # A type repeats few representations many times, and e2cnn hashes each by building a string.
    known: dict[int, tuple[int, ...] | None] = {}
    for representation in field_type.representations:
        key = id(representation)
        if key not in known:
            known[key] = _field_permutation(representation, element)
        within = known[key]
        if within is None:
            return None
        start = len(moved)
        moved += [start + channel for channel in within]
    return tuple(moved)


@lru_cache(maxsize=1024)
def _field_permutation(representation: Any, element: Any) -> tuple[int, ...] | None:
    matrix = np.asarray(representation(element))
    if not (np.isclose(matrix, 0, atol=1e-6) | np.isclose(matrix, 1, atol=1e-6)).all():
        return None
    # Column c of the matrix holds the image of channel c.
    rows = np.argmax(matrix, axis=0)
    return tuple(int(row) for row in rows) if len(set(rows.tolist())) == len(rows) else None
