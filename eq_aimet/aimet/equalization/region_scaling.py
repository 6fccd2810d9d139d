"""Scaling the regions of a model: the range of what is written equals the range of what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eq_aimet.aimet.equalization.regions import Joints
from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Ids, Threshold, joined_classes
from eq_aimet.aimet.output_statistics import scale_statistics
from eq_aimet.symmetry.layers import channel_counts, is_transposed, layer_ranges
from eq_aimet.symmetry.scaling import FloatArray, pair_scales, scale_channels

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
        joints: The result of `find_joints`.
    """
    sources, sinks = joints.sources, joints.sinks
    count = max((int(joint.scales.max()) for joint in [*sources, *sinks]), default=0) + 1
    written, read = np.zeros(count), np.zeros(count)
    for joint in sources:
        np.maximum.at(written, joint.scales, layer_ranges(joint.layer)[0].cpu().numpy())
    for joint in sinks:
        np.maximum.at(read, joint.scales, layer_ranges(joint.layer)[1].cpu().numpy())
    scales = pair_scales(written, read)
    scales[0] = 1.0
    moved = (written > 0) & (read > 0)
    moved[0] = False
    outputs = {joint.layer: 1.0 / scales[joint.scales] for joint in sources}
    inputs = {joint.layer: scales[joint.scales] for joint in sinks}
    for layer in dict.fromkeys([*outputs, *inputs]):
        _scale_layer(layer, outputs.get(layer), inputs.get(layer))
    for joint in sources:
        scale_statistics(joint.layer, scales[joint.scales])
    for joint in joints.thresholds:
        _scale_threshold(joint.layer, scales[joint.scales])
    regions = _regions([joint.scales[moved[joint.scales]] for joint in [*sources, *sinks]], count)
    return [
        ScaledRegion(
            tuple(joint.layer for joint in sources if np.isin(joint.scales, numbers).any()),
            tuple(joint.layer for joint in sinks if np.isin(joint.scales, numbers).any()),
            torch.from_numpy(scales[numbers]),
        )
        for numbers in regions
    ]


def _scale_threshold(threshold: Threshold, scales: FloatArray) -> None:
    tensor = threshold.tensor
    with torch.no_grad():
        tensor.div_(torch.from_numpy(scales).to(tensor))
    if threshold.name == "bias":
        # Of a batch norm, which may know how its output is spread.
        scale_statistics(threshold.module, scales)


def _regions(parts: list[Ids], count: int) -> list[Ids]:
    """Return the numbers of the scales of each region: a layer joins all the scales that it takes.

    Args:
        parts: For each side of a layer, the numbers of the scales that its channels take.
        count: The number of scales.
    """
    parts = [part for part in parts if part.size]
    classes = joined_classes([part[:-1] for part in parts], [part[1:] for part in parts], count)
    firsts = dict.fromkeys(int(classes[part[0]]) for part in parts)
    return [np.flatnonzero(classes == first) for first in firsts]


def _scale_layer(layer: Any, outputs: FloatArray | None, inputs: FloatArray | None) -> None:
    counts = channel_counts(layer)
    assert counts is not None
    in_factors = torch.ones(counts[0]) if inputs is None else torch.from_numpy(inputs)
    out_factors = torch.ones(counts[1]) if outputs is None else torch.from_numpy(outputs)
    sides = (in_factors, out_factors) if is_transposed(layer) else (out_factors, in_factors)
    with torch.no_grad():
        scaled = scale_channels(layer.weight.cpu().double(), *sides, getattr(layer, "groups", 1))
        layer.weight.copy_(scaled)
        if layer.bias is not None:
            layer.bias.copy_(layer.bias.cpu().double() * out_factors)
