"""AIMET's cross-layer scaling, with the range of a block instead of the range of a channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from aimet_torch.cross_layer_equalization import PythonClsImpl

from eq_aimet.errors import EqualizationError, PluginError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import is_blockwise_depthwise
from eq_aimet.symmetry.layers import is_convolution
from eq_aimet.symmetry.scaling import FloatArray, block_ranges, join_blocks, pair_scales, triplet_scales

__all__ = [
    "BlockClsImpl",
    "ClsSet",
    "Convolution",
    "check_cls_set",
    "cls_set_blocks",
    "convert_layer_group",
]

Convolution = torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.ConvTranspose1d | torch.nn.ConvTranspose2d
ClsSet = tuple[Convolution, ...]


@dataclass(frozen=True)
class _StandIn:
    """Replaces a layer in AIMET's pairing, so that a block-wise depthwise layer looks channel-wise."""

    layer: Convolution
    groups: int
    in_channels: int
    out_channels: int


def is_depthwise(layer: Convolution) -> bool:
    """Return whether a layer scales as depthwise layers do: each group is one channel or one block."""
    if layer.groups > 1 and layer.groups == layer.in_channels == layer.out_channels:
        return True
    return is_blockwise_depthwise(layer, layer_blocks(layer))


def convert_layer_group(
    layer_group: list[Convolution], original: Callable[[list[Any]], list[tuple[Any, ...]]]
) -> list[ClsSet]:
    """Return the CLS sets of a group of consecutive layers, by AIMET's own pairing.

    Args:
        layer_group: Consecutive layers. AIMET's function empties the list; this function does not change the
            list if a layer has blocks.
        original: AIMET's `GraphSearchUtils.convert_layer_group_to_cls_sets`.
    """
    if all(layer_blocks(layer) is None for layer in layer_group):
        return original(layer_group)
    stand_ins = [
        _StandIn(
            layer,
            layer.in_channels if is_depthwise(layer) else layer.groups,
            layer.in_channels,
            layer.out_channels,
        )
        for layer in layer_group
    ]
    return [tuple(stand_in.layer for stand_in in cls_set) for cls_set in original(stand_ins)]


def cls_set_blocks(cls_set: ClsSet) -> tuple[int, ...] | None:
    """Return the blocks on which the scales of a CLS set are constant, or `None` if no layer has blocks.

    Raises:
        EqualizationError: If the blocks of the layers do not have the same number of channels.
    """
    partitions: list[tuple[int, ...] | None] = []
    for position, layer in enumerate(cls_set):
        blocks = layer_blocks(layer)
        if blocks is None:
            continue
        if position > 0:
            partitions.append(blocks.blocks_in)
        if position < len(cls_set) - 1:
            partitions.append(blocks.blocks_out)
        if position == 0 and is_depthwise(layer):
            partitions.append(blocks.blocks_in)
    try:
        return join_blocks(*partitions)
    except ValueError as error:
        raise EqualizationError(
            f"The blocks of {' → '.join(str(layer) for layer in cls_set)} do not fit together: {error}. "
            "Tag the layers again with `tag_blocks`, or export the model again."
        ) from error


class BlockClsImpl(PythonClsImpl):
    """AIMET's scaling of one CLS set, with one scale per block; without blocks it is AIMET's own scaling.

    Only the computation of the scales differs. AIMET multiplies them into weights and biases.
    """

    _blocks: tuple[int, ...] | None = None

    def scale_cls_set_with_conv_layers(self, cls_set: ClsSet) -> FloatArray:
        """Scale a source and a sink in place; return the scales of their channels."""
        self._blocks = cls_set_blocks(cls_set)
        return super().scale_cls_set_with_conv_layers(cls_set)

    def scale_cls_set_with_depthwise_layers(self, cls_set: ClsSet) -> tuple[FloatArray, FloatArray]:
        """Scale a source, a depthwise layer and a sink in place; return the scales of their channels."""
        self._blocks = cls_set_blocks(cls_set)
        return super().scale_cls_set_with_depthwise_layers(cls_set)

    def compute_scaling_params_for_conv(self, weight_0: FloatArray, weight_1: FloatArray) -> FloatArray:
        """Return one scale per channel, equal on each block."""
        if self._blocks is None:
            return super().compute_scaling_params_for_conv(weight_0, weight_1)
        return pair_scales(
            block_ranges(_largest(weight_0, (1, 2, 3)), self._blocks),
            block_ranges(_largest(weight_1, (0, 2, 3)), self._blocks),
        )

    def compute_scaling_params_for_depthwise_conv(
        self, weight_0: FloatArray, weight_1: FloatArray, weight_2: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return one scale per channel on each side of the depthwise layer, equal on each block."""
        if self._blocks is None:
            return super().compute_scaling_params_for_depthwise_conv(weight_0, weight_1, weight_2)
        return triplet_scales(
            block_ranges(_largest(weight_0, (1, 2, 3)), self._blocks),
            block_ranges(_largest(weight_1, (1, 2, 3)), self._blocks),
            block_ranges(_largest(weight_2, (0, 2, 3)), self._blocks),
        )


def _largest(weight: FloatArray, axes: tuple[int, ...]) -> FloatArray:
    return np.max(np.abs(weight), axis=axes)


def check_cls_set(
    cls_set: Any, model: torch.nn.Module, unsafe: Mapping[torch.nn.Module, str], plugin: str
) -> None:
    """Check a CLS set that a plugin has added.

    Args:
        cls_set: The entry of the list of CLS sets.
        model: The model.
        unsafe: The layers that must not be scaled, each with the reason.
        plugin: The name of the plugin.

    Raises:
        PluginError: If scales can't move between its layers.
    """
    fault = _fault_of(cls_set, set(model.modules()))
    if not fault:
        fault = next((unsafe[layer] for layer in cls_set if layer in unsafe), None)
    if fault:
        raise PluginError(
            f"`eq_aimet_cls_sets` of the plugin `{plugin}` has added a CLS set that can't be scaled: "
            f"{fault}. Give tuples (source, sink) or (source, depthwise, sink) of consecutive convolutions "
            "of the model."
        )


def _fault_of(cls_set: Any, modules: set[torch.nn.Module]) -> str | None:
    if not isinstance(cls_set, tuple) or len(cls_set) not in (2, 3):
        return f"it is {cls_set!r}"
    for layer in cls_set:
        if not is_convolution(layer):
            return f"{layer!r} is not a convolution"
        if layer not in modules:
            return f"{layer!r} is not a layer of the model"
    if cls_set[0].groups != 1 and not is_depthwise(cls_set[0]):
        return f"its source {cls_set[0]} is grouped"
    if len(cls_set) == 3 and not is_depthwise(cls_set[1]):
        return f"its middle layer {cls_set[1]} is not depthwise"
    if cls_set[-1].groups != 1:
        return f"its sink {cls_set[-1]} is grouped"
    for source, sink in pairwise(cls_set):
        if source.out_channels != sink.in_channels:
            return f"{source} gives {source.out_channels} channels to {sink}"
    return None
