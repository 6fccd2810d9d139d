"""The groups of escnn's spaces: their elements, and the action of an element on an image."""

from __future__ import annotations

import numpy as np
import torch
from escnn import gspaces
from escnn.group import O2, SO2, CyclicGroup, DihedralGroup
from escnn.gspaces import GSpace
from escnn.nn import FieldType

from eq_aimet.adapters.library import GroupElement

__all__ = ["PLANAR_GROUPS", "group_elements", "move_image", "planar_space"]

PLANAR_GROUPS = (CyclicGroup, DihedralGroup, SO2, O2)


def group_elements(gspace: GSpace) -> list[GroupElement]:
    """Return the elements of a space's group without the identity.

    For SO(2) it returns only the quarter turn; for O(2), the quarter turn and one reflection.
    """
    group = gspace.fibergroup
    quarter = np.pi / 2
    if isinstance(group, SO2):
        return [GroupElement(group.element(quarter), False)]
    if isinstance(group, O2):
        return [
            GroupElement(group.element((0, quarter)), False),
            GroupElement(group.element((1, 0.0)), True),
        ]
    is_dihedral = isinstance(group, DihedralGroup)
    return [
        GroupElement(element, is_dihedral and element.value[0] == 1)
        for element in group.elements
        if element != group.identity
    ]


def move_image(gspace: GSpace, element: GroupElement, image: np.ndarray) -> np.ndarray:
    """Return `image`, of shape (height, width), moved by `element`."""
    scalar = FieldType(gspace, [gspace.trivial_repr])
    moved: np.ndarray = scalar.transform(torch.from_numpy(image)[None, None], element.value).numpy()
    return moved[0, 0]


def planar_space(rotations: int, reflections: bool = False) -> GSpace:
    """Return the space of the turns by 360°/`rotations`, with or without reflections."""
    if rotations == 1:
        return gspaces.flip2dOnR2() if reflections else gspaces.trivialOnR2()
    return gspaces.flipRot2dOnR2(rotations) if reflections else gspaces.rot2dOnR2(rotations)
