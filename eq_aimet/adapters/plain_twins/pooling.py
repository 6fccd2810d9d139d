"""From poolings, upsampling and masks to plain modules.

Every function here takes one module and returns a new plain module. The given module stays unchanged.
"""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.adapters.fields import field_sizes
from eq_aimet.adapters.plain_twins import layers, nonlinearities
from eq_aimet.plain import BlockNorm, GroupMaxPool, NormMaxPool

__all__ = [
    "antialiased_average_pool",
    "antialiased_max_pool",
    "average_pool",
    "induced_norm_pool",
    "max_pool",
    "norm_max_pool",
    "upsampling",
]


def upsampling(module: Any) -> torch.nn.Module:
    """Return the `Upsample` of an `R2Upsampling`."""
    scale = None if module._size is not None else module._scale_factor
    return torch.nn.Upsample(
        size=module._size, scale_factor=scale, mode=module._mode, align_corners=module._align_corners
    )


def max_pool(module: Any) -> torch.nn.Module:
    """Return the `MaxPool2d` of a `PointwiseMaxPool`."""
    return torch.nn.MaxPool2d(
        module.kernel_size, module.stride, module.padding, module.dilation, ceil_mode=module.ceil_mode
    )


def antialiased_max_pool(module: Any) -> torch.nn.Module:
    """Return the `MaxPool2d` and the blur of a `PointwiseMaxPoolAntialiased`."""
    # The max pooling has stride 1; the blur after it applies the module's stride.
    pool = torch.nn.MaxPool2d(
        module.kernel_size, 1, module.padding, module.dilation, ceil_mode=module.ceil_mode
    )
    return torch.nn.Sequential(pool, layers.gaussian_blur(module, module._pad))


def average_pool(module: Any) -> torch.nn.Module:
    """Return the `AvgPool2d` of a `PointwiseAvgPool`."""
    return torch.nn.AvgPool2d(module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)


def antialiased_average_pool(module: Any) -> torch.nn.Module:
    """Return the blur of a `PointwiseAvgPoolAntialiased`."""
    return layers.gaussian_blur(module, module.padding)


def norm_max_pool(module: Any) -> torch.nn.Module:
    """Return the `NormMaxPool` of a module of the same name."""
    return NormMaxPool(
        field_sizes(module.in_type),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
    )


def induced_norm_pool(module: Any) -> torch.nn.Module:
    """Return the norms of the subfields of an `InducedNormPool`, and their maximum over each field."""
    parts = [layers.subfield_size(representation) for representation in module.in_type.representations]
    counts = [size // part for size, part in zip(field_sizes(module.in_type), parts, strict=True)]
    return torch.nn.Sequential(BlockNorm(nonlinearities.subfield_sizes(module)), GroupMaxPool(tuple(counts)))
