"""The groups of e2cnn's spaces: their elements, and the action of an element on an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from e2cnn import gspaces
from e2cnn.gspaces import GSpace

from eq_aimet.adapters.library import GroupElement

__all__ = ["group_elements", "move_image", "planar_space"]


def group_elements(gspace: GSpace) -> list[GroupElement]:
    """Return the elements of a space's group without the identity.

    For SO(2) it returns only the quarter turn; for O(2), the quarter turn and one reflection.
    """
    group = gspace.fibergroup
    if group.order() < 0:
        quarter = np.pi / 2
        values: list[Any] = [(0, quarter), (1, 0.0)] if group.name.startswith("O") else [quarter]
    else:
        values = [element for element in group.elements if not group.equal(element, group.identity)]
    return [GroupElement(value, isinstance(value, tuple) and value[0] == 1) for value in values]


def move_image(gspace: GSpace, element: GroupElement, image: np.ndarray) -> np.ndarray:
    """Return `image`, of shape (height, width), moved by `element`."""
    # An element moves the pixels of a field with one trivial channel and does not change the channel.
    moved: np.ndarray = gspace.featurefield_action(image[None, None], gspace.trivial_repr, element.value)
    return moved[0, 0]


def planar_space(rotations: int, reflections: bool = False) -> GSpace:
    """Return the space of the turns by 360°/`rotations`, with or without reflections."""
    if rotations == 1:
        return gspaces.Flip2dOnR2() if reflections else gspaces.TrivialOnR2()
    return gspaces.FlipRot2dOnR2(rotations) if reflections else gspaces.Rot2dOnR2(rotations)
