"""The modules that e2cnn and escnn have in common, and the plain twin of each module."""

from __future__ import annotations

from types import ModuleType

import torch

from eq_aimet.adapters.fields import field_sizes
from eq_aimet.adapters.library import Composite, Converter
from eq_aimet.adapters.plain_twins import composites, layers, nonlinearities, pooling
from eq_aimet.adapters.plain_twins.blockwise import change_of_basis
from eq_aimet.plain import BlockNorm, GroupMaxPool, Mask, SelectChannels

__all__ = ["shared_composites", "shared_converters", "shared_traced_through"]


def shared_converters(modules: ModuleType) -> dict[type, Converter]:
    """Return the function that makes the plain twin of each class that both libraries have.

    Args:
        modules: The library's Python module of modules, `e2cnn.nn` or `escnn.nn`.
    """
    return {getattr(modules, name): converter for name, converter in _CONVERTERS.items()}


def shared_composites(modules: ModuleType) -> dict[type, Composite]:
    """Return the replacement of `forward` for each class that handles fields by label.

    Args:
        modules: The library's Python module of modules, `e2cnn.nn` or `escnn.nn`.
    """
    return {modules.BranchingModule: composites.branch, modules.MergeModule: composites.merge}


def shared_traced_through(modules: ModuleType) -> set[type]:
    """Return the classes whose `forward` only passes fields on to other modules.

    Args:
        modules: The library's Python module of modules, `e2cnn.nn` or `escnn.nn`.
    """
    return {modules.SequentialModule, modules.MultipleModule, modules.RestrictionModule}


_CONVERTERS: dict[str, Converter] = {
    "R2Conv": layers.convolution,
    "R2ConvTransposed": layers.transposed_convolution,
    "R2Upsampling": pooling.upsampling,
    "InnerBatchNorm": layers.inner_batch_norm,
    "NormBatchNorm": layers.norm_batch_norm,
    "InducedNormBatchNorm": layers.induced_norm_batch_norm,
    "GNormBatchNorm": layers.generic_batch_norm,
    # A plain module never works in place; the tracer passes the change on to later uses of the input.
    "ReLU": lambda module: torch.nn.ReLU(),
    "ELU": lambda module: torch.nn.ELU(alpha=module.alpha),
    "PointwiseNonLinearity": nonlinearities.pointwise,
    "ConcatenatedNonLinearity": nonlinearities.concatenated,
    "VectorFieldNonLinearity": nonlinearities.vector_field,
    "NormNonLinearity": nonlinearities.norm_nonlinearity,
    "InducedNormNonLinearity": nonlinearities.induced_norm_nonlinearity,
    "GatedNonLinearity1": nonlinearities.gated,
    "GatedNonLinearity2": nonlinearities.gated_by_second_input,
    "InducedGatedNonLinearity1": nonlinearities.induced_gated,
    "PointwiseMaxPool": pooling.max_pool,
    "PointwiseMaxPoolAntialiased": pooling.antialiased_max_pool,
    "PointwiseAvgPool": pooling.average_pool,
    "PointwiseAvgPoolAntialiased": pooling.antialiased_average_pool,
    "PointwiseAdaptiveAvgPool": lambda module: torch.nn.AdaptiveAvgPool2d(module.output_size),
    "PointwiseAdaptiveMaxPool": lambda module: torch.nn.AdaptiveMaxPool2d(module.output_size),
    "NormMaxPool": pooling.norm_max_pool,
    "GroupPooling": lambda module: GroupMaxPool(field_sizes(module.in_type)),
    "MaxPoolChannels": lambda module: GroupMaxPool(int(module.kernel_size)),
    "NormPool": lambda module: BlockNorm(field_sizes(module.in_type)),
    "InducedNormPool": pooling.induced_norm_pool,
    "ReshuffleModule": lambda module: SelectChannels(module.indices.tolist()),
    "DisentangleModule": change_of_basis,
    "MaskModule": lambda module: Mask(module.mask),
    "IdentityModule": lambda module: torch.nn.Identity(),
    # A dropout changes nothing in eval mode.
    "PointwiseDropout": lambda module: torch.nn.Identity(),
    "FieldDropout": lambda module: torch.nn.Identity(),
}
