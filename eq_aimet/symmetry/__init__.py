"""Blocks, orbits and the measuring of equivariance; this subpackage depends only on torch and numpy."""

from eq_aimet.symmetry.actions import Action, regular_actions
from eq_aimet.symmetry.blocks import LayerBlocks, TagHandle, tag_blocks
from eq_aimet.symmetry.elements import Element, exact_elements
from eq_aimet.symmetry.equivariance import assert_equivariant, equivariance_error
from eq_aimet.symmetry.equivariance_report import EquivarianceReport, OutputChange
from eq_aimet.symmetry.orbit_numbers import orbit_index
from eq_aimet.symmetry.orbits import asymmetry, is_symmetric, symmetrize, weight_orbits

__all__ = [
    "Action",
    "LayerBlocks",
    "TagHandle",
    "regular_actions",
    "tag_blocks",
    "orbit_index",
    "weight_orbits",
    "symmetrize",
    "is_symmetric",
    "asymmetry",
    "equivariance_error",
    "assert_equivariant",
    "EquivarianceReport",
    "OutputChange",
    "Element",
    "exact_elements",
]
