"""Padding, resizing and flattening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from eq_aimet import plain
from eq_aimet.adapters.tracing.functions.operands import Activation, Converter

__all__ = ["RESIZING", "upsampling"]

# The keys are the mode and the number of padded dimensions.
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
    return upsampling(nn.Upsample(sizes, factors, mode, align_corners, recompute_scale_factor), input.example)


def upsampling(module: nn.Upsample, x: torch.Tensor) -> nn.Module:
    """Return `module`, or a `BilinearUpsampling` that computes the same.

    If the output size is fixed, the factor is whole only for the grid of `x`. The returned module refuses
    other grids.

    Args:
        module: An upsampling.
        x: The input of the upsampling.
    """
    if module.mode != "bilinear" or x.dim() != 4:
        return module
    factors = _whole_factors(module, (int(x.shape[2]), int(x.shape[3])))
    if len(factors) != 1 or min(factors) < 2:
        return module
    given: Any = module.size
    sizes = given if isinstance(given, tuple) else (given, given)
    size = None if given is None else (int(sizes[0]), int(sizes[1]))
    return (
        plain.BilinearUpsampling(
            int(x.shape[1]), factors.pop(), bool(module.align_corners), output_size=size, dtype=x.dtype
        )
        .to(x.device)
        .eval()
    )


def _whole_factors(module: nn.Upsample, grid: tuple[int, int]) -> set[int]:
    """Return the factors along height and width; 0 for a factor that is not whole, or not fixed."""
    align = bool(module.align_corners)
    if module.size is None:
        given = module.scale_factor
        factors = given if isinstance(given, tuple) else (given, given)
        # With aligned corners the distance of the output pixels depends on the size of the grid.
        return {0 if align or factor is None or factor % 1 else int(factor) for factor in factors}
    sizes = module.size if isinstance(module.size, tuple) else (module.size, module.size)
    spans = [(size - align, side - align) for size, side in zip(sizes, grid, strict=True)]
    return {size // side if side and size % side == 0 else 0 for size, side in spans}


def _flatten(input: Activation, start_dim: int = 0, end_dim: int = -1) -> nn.Module | None:
    # Flattening the batch leaves one vector, and no layer accepts it.
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
