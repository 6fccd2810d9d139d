"""Maximum pooling in numpy with the positions of the maxima, as ONNX defines it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["max_pool"]


def max_pool(
    x: np.ndarray,
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    ceil_mode: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the maximum of each window, and its position in the flattened `x`.

    If several values of a window are the maximum, the position is that of the first one, row by row. A value
    of the padding is never the maximum.

    Args:
        x: The values, (batch, channels, *grid).
        kernel: The size of a window along each dimension of the grid.
        strides: The steps between windows.
        pads: The padding before the grid along each dimension, then the padding behind it.
        dilations: The steps within a window.
        ceil_mode: Whether a last window may reach beyond the padding.

    Example:
        >>> x = np.array([[[1, 5, 2, 5]]])
        >>> values, positions = max_pool(x, [3], strides=[2], pads=[1, 0], dilations=[1])
        >>> values.tolist(), positions.tolist()
        ([[[5, 5]]], [[[1, 1]]])
    """
    grid, rank = x.shape[2:], len(kernel)
    before, sizes, behind = pads[:rank], [], []
    for axis in range(rank):
        covered = dilations[axis] * (kernel[axis] - 1) + 1
        free = grid[axis] + pads[axis] + pads[rank + axis] - covered
        size = (-(-free // strides[axis]) if ceil_mode else free // strides[axis]) + 1
        if ceil_mode and (size - 1) * strides[axis] >= grid[axis] + before[axis]:
            size -= 1  # the last window would start in the padding behind the grid
        sizes.append(size)
        behind.append(max((size - 1) * strides[axis] + covered - before[axis] - grid[axis], 0))
    margins = [(0, 0), (0, 0), *zip(before, behind, strict=True)]
    padded = np.pad(x, margins)
    places = np.pad(np.arange(x.size).reshape(x.shape), margins, constant_values=-1)
    values = np.zeros((*x.shape[:2], *sizes), x.dtype)
    positions = np.full(values.shape, -1, np.int64)
    for tap in itertools.product(*map(range, kernel)):
        along: tuple[Any, ...] = tuple(
            slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
            for at, dilation, size, stride in zip(tap, dilations, sizes, strides, strict=True)
        )
        window: tuple[Any, ...] = (..., *along)
        seen, place = padded[window], places[window]
        is_larger = (place >= 0) & ((positions < 0) | (seen > values))
        values, positions = np.where(is_larger, seen, values), np.where(is_larger, place, positions)
    return values, positions
