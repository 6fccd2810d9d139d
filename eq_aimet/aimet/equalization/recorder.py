"""Records the changes to a model during one equalization, for the report."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from eq_aimet.aimet.equalization.block_scaling import ClsSet, Convolution
from eq_aimet.aimet.equalization.high_bias_fold import Absorption
from eq_aimet.aimet.equalization.region_scaling import ScaledRegion
from eq_aimet.aimet.equalization.regions import Joints
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.layers import layer_ranges

__all__ = ["Fold", "Recorder", "ScaledSet", "output_ranges"]


@dataclass(frozen=True)
class Fold:
    """A batch norm that AIMET folded into a layer: `follows` tells whether it came after the layer."""

    layer: torch.nn.Module
    norm: torch.nn.Module
    follows: bool


@dataclass(frozen=True)
class ScaledSet:
    """A CLS set, the blocks its scales are constant on, and the scales (channels,) at each joint."""

    layers: ClsSet
    blocks: tuple[int, ...] | None
    scales: tuple[torch.Tensor, ...]


@dataclass
class Recorder:
    """Collects what the hooks see.

    Attributes:
        folds: The batch norms that were folded.
        not_folded: The batch norms that AIMET would have folded wrongly, each with the reason.
        dropped: CLS sets that a plugin removed.
        added: CLS sets that a plugin added, each with the name of the plugin.
        scaled: The CLS sets that were scaled.
        joints: The places that scales belong to, in the search for regions.
        regions: The regions that were scaled.
        unsafe: The layers that must not be scaled, each with the reason.
        ranges_before: The block ranges of each layer after batch-norm folding, before scaling.
        absorptions: The result of the high-bias fold at each joint.
    """

    folds: list[Fold] = field(default_factory=list)
    not_folded: dict[torch.nn.Module, str] = field(default_factory=dict)
    dropped: list[ClsSet] = field(default_factory=list)
    added: dict[ClsSet, str] = field(default_factory=dict)
    scaled: list[ScaledSet] = field(default_factory=list)
    joints: Joints = field(default_factory=Joints)
    regions: list[ScaledRegion] = field(default_factory=list)
    unsafe: dict[torch.nn.Module, str] = field(default_factory=dict)
    ranges_before: dict[torch.nn.Module, torch.Tensor] = field(default_factory=dict)
    absorptions: list[Absorption] = field(default_factory=list)


def output_ranges(layer: Convolution) -> torch.Tensor:
    """Return the largest |w| of each block of the layer's output channels, of shape (blocks,).

    A layer without blocks has blocks of one channel.
    """
    ranges = layer_ranges(layer)[0].cpu()
    blocks = layer_blocks(layer)
    if blocks is None:
        return ranges
    starts = np.cumsum((0, *blocks.blocks_out[:-1]))
    return torch.from_numpy(np.maximum.reduceat(ranges.numpy(), starts))
