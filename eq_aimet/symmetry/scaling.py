"""Block ranges and the scales that equalize them.

The formulas are those of AIMET's cross-layer scaling (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", arXiv 1906.04721, equation 11), with the range of a block in place of the
range of a channel. One scale per block commutes with the group (Mohamed et al., arXiv 2004.09691, section
4.1).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "block_ranges",
    "channel_ranges",
    "join_blocks",
    "pair_scales",
    "scale_channels",
    "triplet_scales",
]

FloatArray = NDArray[np.floating]


def join_blocks(*partitions: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the finest blocks that no partition cuts, or `None` if no partition is given.

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


def channel_ranges(weight: torch.Tensor, groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest |w| of each row channel and of each column channel of a weight.

    Args:
        weight: The weight, of shape (rows, columns/groups, …). Rows are a layer's outputs and columns its
            inputs; in a transposed convolution rows are the inputs and columns the outputs.
        groups: The convolution's groups.

    Returns:
        The ranges, of shapes (rows,) and (columns,).

    Example:
        >>> rows, columns = channel_ranges(torch.tensor([[1.0, -2.0], [0.5, 4.0]]))
        >>> rows.tolist(), columns.tolist()
        ([2.0, 4.0], [1.0, 4.0])
    """
    magnitudes = weight.detach().abs().flatten(2) if weight.dim() > 2 else weight.detach().abs()[..., None]
    largest = magnitudes.amax(2)  # [rows, columns/groups]
    return largest.amax(1), largest.unflatten(0, (groups, -1)).amax(1).flatten()


def scale_channels(
    weight: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, groups: int = 1
) -> torch.Tensor:
    """Return a weight with each row and column channel multiplied by its factor; shape and dtype as `weight`.

    Args:
        weight: The weight, of shape (rows, columns/groups, …), see `channel_ranges`.
        rows: The factors of the rows, of shape (rows,).
        columns: The factors of the columns, of shape (columns,).
        groups: The convolution's groups.
    """
    rows_per_group = weight.shape[0] // groups
    spread = columns.reshape(groups, -1).repeat_interleave(rows_per_group, 0)  # [rows, columns/groups]
    factors = (rows[:, None] * spread).to(weight)
    return weight * factors.reshape(*factors.shape, *[1] * (weight.dim() - 2))
