"""The table of e2cnn's modules: for each class, the function that returns its plain twin in eval mode."""

from __future__ import annotations

from e2cnn import nn as enn

from eq_aimet.adapters.e2cnn.convolution import ChannelwiseR2Conv
from eq_aimet.adapters.e2cnn.fast_batch_norm import FieldBatchNorm
from eq_aimet.adapters.e2cnn.grouped import GroupedR2Conv
from eq_aimet.adapters.e2cnn.mask import CircularMask
from eq_aimet.adapters.library import Composite, Converter
from eq_aimet.adapters.plain_twins import layers
from eq_aimet.adapters.plain_twins.table import shared_composites, shared_converters, shared_traced_through

__all__ = ["COMPOSITES", "CONVERTERS", "TRACED_THROUGH"]

COMPOSITES: dict[type, Composite] = shared_composites(enn)
TRACED_THROUGH: frozenset[type] = frozenset(shared_traced_through(enn) | {enn.ModuleList})


CONVERTERS: dict[type, Converter] = {
    **shared_converters(enn),
    enn.R2Diffop: layers.convolution,
    GroupedR2Conv: layers.convolution,
    ChannelwiseR2Conv: layers.channelwise_convolution,
    FieldBatchNorm: layers.inner_batch_norm,
    CircularMask: lambda module: module.export(),
}
