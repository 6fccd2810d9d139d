"""Scaling the regions of a model: the range of what is written equals the range of what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eq_aimet.aimet.equalization.regions import Joint, Joints
from eq_aimet.aimet.equalization.scale_variables import Threshold
from eq_aimet.aimet.output_statistics import scale_statistics
from eq_aimet.symmetry import channel_ranges, is_transposed, pair_scales, scale_channels
from eq_aimet.symmetry.scaling import FloatArray

__all__ = ["ScaledRegion", "scale_regions"]


@dataclass(frozen=True, eq=False)
class ScaledRegion:
    """Layers between which scales moved.

    Attributes:
        sources: The layers whose output channels were divided by the scales.
        sinks: The layers whose input channels were multiplied by them.
        scales: The scales, of shape (independent scales,).
    """

    sources: tuple[Any, ...]
    sinks: tuple[Any, ...]
    scales: torch.Tensor


def scale_regions(joints: Joints) -> list[ScaledRegion]:
    """Scale all regions of a model in place; return what was scaled.

    Each independent scale is s = r₁ / √(r₁ r₂), with r₁ the largest |w| of all source channels that take it,
    and r₂ that of all sink channels. A scale that has no source, no sink, or only zeros on one side stays 1.

    Args:
        joints: What `find_joints` returns.
    """
    sources, sinks = joints.sources, joints.sinks
    count = max((int(joint.scales.max()) for joint in [*sources, *sinks]), default=0) + 1
    written, read = np.zeros(count), np.zeros(count)
    for joint in sources:
        np.maximum.at(written, joint.scales, _ranges(joint.layer)[0])
    for joint in sinks:
        np.maximum.at(read, joint.scales, _ranges(joint.layer)[1])
    scales = pair_scales(written, read)
    scales[0] = 1.0
    moved = set(np.flatnonzero((written > 0) & (read > 0)).tolist()) - {0}
    outputs = {joint.layer: 1.0 / scales[joint.scales] for joint in sources}
    inputs = {joint.layer: scales[joint.scales] for joint in sinks}
    for layer in dict.fromkeys([*outputs, *inputs]):
        _scale_layer(layer, outputs.get(layer), inputs.get(layer))
    for joint in sources:
        scale_statistics(joint.layer, scales[joint.scales])
    for joint in joints.thresholds:
        _scale_threshold(joint.layer, scales[joint.scales])
    return [
        ScaledRegion(
            tuple(joint.layer for joint in sources if numbers & _numbers(joint)),
            tuple(joint.layer for joint in sinks if numbers & _numbers(joint)),
            torch.from_numpy(scales[sorted(numbers)]),
        )
        for numbers in _regions([_numbers(joint) & moved for joint in [*sources, *sinks]])
    ]


def _scale_threshold(threshold: Threshold, scales: FloatArray) -> None:
    tensor = threshold.tensor
    with torch.no_grad():
        tensor.div_(torch.from_numpy(scales).to(tensor))
    if threshold.name == "bias":
        # Of a batch norm, which may know how its output is spread.
        scale_statistics(threshold.module, scales)


def _numbers(joint: Joint) -> set[int]:
    return set(np.unique(joint.scales).tolist())


def _regions(parts: list[set[int]]) -> list[set[int]]:
    """Return the sets of scales that hang together because a layer takes several of them."""
    regions: list[set[int]] = []
    for part in parts:
        if part:
            touching = [region for region in regions if region & part]
            regions = [region for region in regions if not region & part] + [part.union(*touching)]
    return regions


def _ranges(layer: Any) -> tuple[FloatArray, FloatArray]:
    """Return the ranges of the output channels and of the input channels."""
    rows, columns = channel_ranges(layer.weight, getattr(layer, "groups", 1))
    sides = (columns, rows) if is_transposed(layer) else (rows, columns)
    return sides[0].double().cpu().numpy(), sides[1].double().cpu().numpy()


def _scale_layer(layer: Any, outputs: FloatArray | None, inputs: FloatArray | None) -> None:
    groups = getattr(layer, "groups", 1)
    rows, columns = layer.weight.shape[0], layer.weight.shape[1] * groups
    out_channels, in_channels = (columns, rows) if is_transposed(layer) else (rows, columns)
    out_factors = torch.ones(out_channels) if outputs is None else torch.from_numpy(outputs)
    in_factors = torch.ones(in_channels) if inputs is None else torch.from_numpy(inputs)
    sides = (in_factors, out_factors) if is_transposed(layer) else (out_factors, in_factors)
    with torch.no_grad():
        layer.weight.copy_(scale_channels(layer.weight.cpu().double(), *sides, groups))
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.cpu().double() * out_factors)
