"""The table of e2cnn's modules: which function makes the plain module that computes the same in eval mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from e2cnn import nn as enn

from eq_aimet.adapters.e2cnn import layers, nonlinearities
from eq_aimet.adapters.e2cnn.batch_norm import FieldBatchNorm
from eq_aimet.adapters.e2cnn.blockwise import change_of_basis
from eq_aimet.adapters.e2cnn.convolution import ChannelwiseR2Conv
from eq_aimet.adapters.e2cnn.grouped import GroupedR2Conv
from eq_aimet.adapters.e2cnn.mask import CircularMask
from eq_aimet.adapters.fields import field_sizes, tag_with_types
from eq_aimet.plain.norm_modules import BlockNorm, NormMaxPool
from eq_aimet.plain.operations import GroupMaxPool, Mask, SelectChannels

__all__ = ["CONVERTERS", "TRACED_THROUGH"]

# Modules whose forward only passes fields on to other modules: the tracer goes into them.
TRACED_THROUGH: frozenset[type] = frozenset(
    (enn.SequentialModule, enn.ModuleList, enn.MultipleModule, enn.RestrictionModule)
)


def _channelwise_convolution(module: ChannelwiseR2Conv) -> torch.nn.Module:
    return tag_with_types(module.export(), module.in_type, module.out_type, kernel_size=module.kernel_size)


def _upsampling(module: enn.R2Upsampling) -> torch.nn.Module:
    scale = None if module._size is not None else module._scale_factor
    return torch.nn.Upsample(
        size=module._size, scale_factor=scale, mode=module._mode, align_corners=module._align_corners
    )


def _max_pool(module: enn.PointwiseMaxPool) -> torch.nn.Module:
    return torch.nn.MaxPool2d(
        module.kernel_size, module.stride, module.padding, module.dilation, ceil_mode=module.ceil_mode
    )


def _antialiased_max_pool(module: enn.PointwiseMaxPoolAntialiased) -> torch.nn.Module:
    # The maximum is taken at every pixel; the blur behind it makes the strides.
    pool = torch.nn.MaxPool2d(
        module.kernel_size, 1, module.padding, module.dilation, ceil_mode=module.ceil_mode
    )
    return torch.nn.Sequential(pool, layers.gaussian_blur(module, module._pad))


def _norm_max_pool(module: enn.NormMaxPool) -> torch.nn.Module:
    return NormMaxPool(
        field_sizes(module.in_type),
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.ceil_mode,
    )


def _induced_norm_pool(module: enn.InducedNormPool) -> torch.nn.Module:
    parts = [layers.subfield_size(representation) for representation in module.in_type.representations]
    counts = [size // part for size, part in zip(field_sizes(module.in_type), parts, strict=True)]
    return torch.nn.Sequential(BlockNorm(nonlinearities.subfield_sizes(module)), GroupMaxPool(tuple(counts)))


CONVERTERS: dict[type, Callable[[Any], torch.nn.Module]] = {
    enn.R2Conv: layers.convolution,
    GroupedR2Conv: layers.convolution,
    ChannelwiseR2Conv: _channelwise_convolution,
    enn.R2ConvTransposed: layers.transposed_convolution,
    enn.R2Diffop: layers.convolution,
    enn.R2Upsampling: _upsampling,
    enn.InnerBatchNorm: layers.inner_batch_norm,
    FieldBatchNorm: layers.inner_batch_norm,
    enn.NormBatchNorm: layers.norm_batch_norm,
    enn.InducedNormBatchNorm: layers.induced_norm_batch_norm,
    enn.GNormBatchNorm: layers.generic_batch_norm,
    # A plain module never works in place; the tracer passes the change on to later uses of the input.
    enn.ReLU: lambda module: torch.nn.ReLU(),
    enn.ELU: lambda module: torch.nn.ELU(alpha=module.alpha),
    enn.PointwiseNonLinearity: nonlinearities.pointwise,
    enn.ConcatenatedNonLinearity: nonlinearities.concatenated,
    enn.VectorFieldNonLinearity: nonlinearities.vector_field,
    enn.NormNonLinearity: nonlinearities.norm_nonlinearity,
    enn.InducedNormNonLinearity: nonlinearities.induced_norm_nonlinearity,
    enn.GatedNonLinearity1: nonlinearities.gated,
    enn.GatedNonLinearity2: nonlinearities.gated_by_second_input,
    enn.InducedGatedNonLinearity1: nonlinearities.induced_gated,
    enn.PointwiseMaxPool: _max_pool,
    enn.PointwiseMaxPoolAntialiased: _antialiased_max_pool,
    enn.PointwiseAvgPool: lambda module: torch.nn.AvgPool2d(
        module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode
    ),
    enn.PointwiseAvgPoolAntialiased: lambda module: layers.gaussian_blur(module, module.padding),
    enn.PointwiseAdaptiveAvgPool: lambda module: torch.nn.AdaptiveAvgPool2d(module.output_size),
    enn.PointwiseAdaptiveMaxPool: lambda module: torch.nn.AdaptiveMaxPool2d(module.output_size),
    enn.NormMaxPool: _norm_max_pool,
    enn.GroupPooling: lambda module: GroupMaxPool(field_sizes(module.in_type)),
    enn.MaxPoolChannels: lambda module: GroupMaxPool(int(module.kernel_size)),
    enn.NormPool: lambda module: BlockNorm(field_sizes(module.in_type)),
    enn.InducedNormPool: _induced_norm_pool,
    enn.ReshuffleModule: lambda module: SelectChannels(module.indices.tolist()),
    enn.DisentangleModule: change_of_basis,
    enn.MaskModule: lambda module: Mask(module.mask),
    CircularMask: lambda module: module.export(),
    enn.IdentityModule: lambda module: torch.nn.Identity(),
    # Dropouts do nothing in eval mode.
    enn.PointwiseDropout: lambda module: torch.nn.Identity(),
    enn.FieldDropout: lambda module: torch.nn.Identity(),
}
