"""Poolings, and means, sums and maxima over dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from eq_aimet import plain
from eq_aimet.adapters.tracing.functions.operands import Activation, Converter

__all__ = ["POOLING", "adaptive_pool"]

Size = int | Sequence[int]


def _average_pool(
    input: Activation,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> nn.Module:
    return nn.AvgPool2d(
        _fixed(kernel_size), _fixed(stride), _fixed(padding), ceil_mode, count_include_pad, divisor_override
    )


def _max_pool(
    input: Activation,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module | None:
    if return_indices:
        return None
    return nn.MaxPool2d(
        _fixed(kernel_size), _fixed(stride), _fixed(padding), _fixed(dilation), ceil_mode=ceil_mode
    )


def _adaptive_average_pool(input: Activation, output_size: Any) -> nn.Module:
    return adaptive_pool(nn.AdaptiveAvgPool2d(output_size), input.example)


def _adaptive_max_pool(input: Activation, output_size: Any, return_indices: bool = False) -> nn.Module | None:
    return None if return_indices else adaptive_pool(nn.AdaptiveMaxPool2d(output_size), input.example)


def adaptive_pool(pool: nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d, x: torch.Tensor) -> nn.Module:
    """Return `pool`, or an equal plain module if ONNX has no operator for `pool`.

    Args:
        pool: An adaptive pooling.
        x: The input of the pooling.
    """
    grid = (int(x.shape[-2]), int(x.shape[-1]))
    sizes = pool.output_size if isinstance(pool.output_size, (tuple, list)) else 2 * (pool.output_size,)
    output = tuple(side if size is None else int(size) for size, side in zip(sizes, grid, strict=True))
    if all(side % size == 0 for size, side in zip(output, grid, strict=True)):
        return pool
    uneven = plain.UnevenMaxPool if isinstance(pool, nn.AdaptiveMaxPool2d) else plain.UnevenAveragePool
    return uneven((output[0], output[1])).eval()


def _fixed(size: Any) -> Any:
    """Return a size in the form that torch's modules store."""
    return tuple(size) if isinstance(size, (list, tuple)) else size


def _mean(input: Activation, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return None if dtype is not None else _reduced(plain.Mean, input, dim, keepdim)


def _sum(input: Activation, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return None if dtype is not None else _reduced(plain.Sum, input, dim, keepdim)


def _largest(input: Activation, dim: Any = (), keepdim: bool = False) -> Any:
    return _reduced(plain.Largest, input, dim, keepdim)


def _smallest(input: Activation, dim: Any = (), keepdim: bool = False) -> Any:
    return _reduced(plain.Smallest, input, dim, keepdim)


def _reduced(module: Any, input: Activation, dim: Any, keepdim: bool) -> nn.Module | None:
    dims = (dim,) if isinstance(dim, int) else tuple(dim or ())
    # Without dimensions the function also reduces the batch, and no later layer accepts the result.
    if not dims or not input.example.is_floating_point():
        return None
    made: nn.Module = module(tuple(int(place) % input.rank for place in dims), keepdim)
    return made


POOLING: dict[Any, tuple[str, Converter]] = {
    F.avg_pool2d: ("avg_pool", _average_pool),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), ("max_pool", _max_pool)),
    F.adaptive_avg_pool2d: ("adaptive_avg_pool", _adaptive_average_pool),
    F.adaptive_max_pool2d: ("adaptive_max_pool", _adaptive_max_pool),
    **dict.fromkeys((torch.mean, "mean"), ("mean", _mean)),
    **dict.fromkeys((torch.sum, "sum"), ("sum", _sum)),
    **dict.fromkeys((torch.amax, "amax"), ("amax", _largest)),
    **dict.fromkeys((torch.amin, "amin"), ("amin", _smallest)),
}
