"""Block ranges and the scales that equalize them.

The formulas are those of AIMET's cross-layer scaling (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", arXiv 1906.04721, equation 11), with the range of a block in the place
of a channel's. One scale per block commutes with the group (Mohamed et al., arXiv 2004.09691, section 4.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["block_ranges", "block_sums", "join_blocks", "pair_scales", "triplet_scales"]

FloatArray = NDArray[np.floating]


def join_blocks(*partitions: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the finest blocks that no partition cuts, or `None` where no partition is given.

    Args:
        partitions: Block sizes of the same channels, each adding up to the same number; `None` stands for
            "no blocks".

    Raises:
        ValueError: If the partitions are of different numbers of channels.

    Example:
        >>> join_blocks((4, 4, 1, 1), (2, 2, 4, 2))
        (4, 4, 2)
        >>> join_blocks((4, 4), None)
        (4, 4)
    """
    given = [partition for partition in partitions if partition is not None]
    if not given:
        return None
    ends = [set(np.cumsum(partition).tolist()) for partition in given]
    if len({max(end) for end in ends}) != 1:
        raise ValueError(f"blocks of {[sum(partition) for partition in given]} channels can't be joined")
    shared = sorted(set.intersection(*ends))
    return tuple(int(size) for size in np.diff([0, *shared]))


def block_ranges(channel_ranges: FloatArray, blocks: tuple[int, ...]) -> FloatArray:
    """Return, for each channel, the largest range of its block; shape (channels,) as given.

    Example:
        >>> block_ranges(np.array([1.0, 3.0, 2.0, 2.5]), (2, 2)).tolist()
        [3.0, 3.0, 2.5, 2.5]
    """
    return np.repeat(np.maximum.reduceat(channel_ranges, _starts(blocks)), blocks)


def block_sums(values: FloatArray, blocks: tuple[int, ...]) -> FloatArray:
    """Return the sum of `values` over each block, of shape (blocks,)."""
    return np.add.reduceat(values, _starts(blocks))


def pair_scales(range_source: FloatArray, range_sink: FloatArray) -> FloatArray:
    """Return s = r₁ / √(r₁ r₂) of a source and a sink, of shape (channels,); 1 where a range is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return _without_dead(range_source / np.power(range_source * range_sink, 1.0 / 2))


def triplet_scales(
    range_source: FloatArray, range_depthwise: FloatArray, range_sink: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return s₁₂ = r₁ / ∛(r₁r₂r₃) and s₂₃ = ∛(r₁r₂r₃) / r₃, each of shape (channels,).

    Both are 1 where any of the three ranges is zero.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.power(range_source * range_depthwise * range_sink, 1.0 / 3)
        return _without_dead(range_source / root), _without_dead(root / range_sink)


def _without_dead(scales: FloatArray) -> FloatArray:
    scales = np.nan_to_num(scales, nan=1.0, posinf=1.0)
    scales[scales == 0.0] = 1.0
    return scales


def _starts(blocks: tuple[int, ...]) -> NDArray[np.intp]:
    return np.cumsum((0, *blocks[:-1]))
