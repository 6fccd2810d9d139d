"""Blocks, orbits, scaling and the measuring of equivariance, on torch and numpy alone."""

from eq_aimet.symmetry.actions import Action, regular_actions
from eq_aimet.symmetry.blocks import LayerBlocks, TagHandle, is_blockwise_depthwise, stored_blocks, tag_blocks
from eq_aimet.symmetry.elements import Element, exact_elements
from eq_aimet.symmetry.equivariance import assert_equivariant, equivariance_error
from eq_aimet.symmetry.equivariance_report import EquivarianceReport, OutputChange
from eq_aimet.symmetry.layers import channel_counts, is_convolution, is_layer, is_transposed, layer_ranges
from eq_aimet.symmetry.orbit_numbers import orbit_index
from eq_aimet.symmetry.orbits import asymmetry, is_symmetric, symmetrize, weight_orbits
from eq_aimet.symmetry.scaling import (
    block_ranges,
    channel_ranges,
    join_blocks,
    pair_scales,
    scale_channels,
    triplet_scales,
)

__all__ = [
    "Action",
    "LayerBlocks",
    "TagHandle",
    "channel_counts",
    "is_blockwise_depthwise",
    "is_convolution",
    "is_layer",
    "is_transposed",
    "layer_ranges",
    "regular_actions",
    "stored_blocks",
    "tag_blocks",
    "orbit_index",
    "weight_orbits",
    "symmetrize",
    "is_symmetric",
    "asymmetry",
    "join_blocks",
    "block_ranges",
    "pair_scales",
    "triplet_scales",
    "channel_ranges",
    "scale_channels",
    "equivariance_error",
    "assert_equivariant",
    "EquivarianceReport",
    "OutputChange",
    "Element",
    "exact_elements",
]
