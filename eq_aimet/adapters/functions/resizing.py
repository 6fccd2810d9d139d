"""Padding, resizing and flattening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from eq_aimet import plain
from eq_aimet.adapters.functions.operands import Activation, Converter

__all__ = ["RESIZING"]

# By mode and the number of padded dimensions.
_PADDINGS: dict[tuple[str, int], Any] = {
    ("reflect", 1): nn.ReflectionPad1d,
    ("reflect", 2): nn.ReflectionPad2d,
    ("replicate", 1): nn.ReplicationPad1d,
    ("replicate", 2): nn.ReplicationPad2d,
    ("circular", 1): nn.CircularPad1d,
    ("circular", 2): nn.CircularPad2d,
}


def _pad(
    input: Activation, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> nn.Module | None:
    padding = tuple(int(size) for size in pad)
    if mode == "constant":
        if not value and len(padding) == 4:
            return nn.ZeroPad2d(padding)
        return plain.ConstantPad(padding, float(value or 0.0))
    module = _PADDINGS.get((mode, len(padding) // 2))
    made: nn.Module | None = None if module is None else module(padding)
    return made


def _interpolate(
    input: Activation,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> nn.Module | None:
    if antialias:
        return None
    sizes = tuple(size) if isinstance(size, (list, tuple)) else size
    factors = tuple(scale_factor) if isinstance(scale_factor, (list, tuple)) else scale_factor
    return nn.Upsample(sizes, factors, mode, align_corners, recompute_scale_factor)


def _flatten(input: Activation, start_dim: int = 0, end_dim: int = -1) -> nn.Module | None:
    # Flattening the batch leaves one vector, which no layer takes.
    return nn.Flatten(start_dim, end_dim) if start_dim % input.rank else None


def _pixel_shuffle(input: Activation, upscale_factor: int) -> nn.Module:
    return nn.PixelShuffle(upscale_factor)


RESIZING: dict[Any, tuple[str, Converter]] = {
    F.pad: ("pad", _pad),
    F.interpolate: ("interpolate", _interpolate),
    F.upsample: ("interpolate", _interpolate),
    **dict.fromkeys((torch.flatten, "flatten"), ("flatten", _flatten)),
    **dict.fromkeys((F.pixel_shuffle, torch.pixel_shuffle), ("pixel_shuffle", _pixel_shuffle)),
}
