"""Writes the report of an equalization from the changes that the hooks recorded."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from eq_aimet.aimet.equalization.left_out_reasons import reasons_left_out
from eq_aimet.aimet.equalization.recorder import Recorder, ScaledSet, output_ranges
from eq_aimet.aimet.equalization.region_scaling import ScaledRegion
from eq_aimet.aimet.equalization.report import (
    ClsSetRecord,
    EqualizationReport,
    LayerRecord,
    NormRecord,
    RegionRecord,
    Span,
)
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.layers import is_convolution, is_layer

__all__ = ["make_report"]


def make_report(
    recorder: Recorder, names: dict[torch.nn.Module, str], high_bias_fold: str
) -> EqualizationReport:
    """Return the report of an equalization.

    Args:
        recorder: The changes that the hooks recorded.
        names: The dotted name of each module that the model had before the equalization.
        high_bias_fold: The mode of the high-bias fold.
    """
    reasons = reasons_left_out(recorder, names)
    ran = list(recorder.ranges_before)
    layers = ran + [module for module in names if is_layer(module) and module not in set(ran)]
    folded_into = {fold.norm: names[fold.layer] for fold in recorder.folds}
    return EqualizationReport(
        layers=tuple(_layer_record(layer, recorder, names, reasons) for layer in layers),
        cls_sets=tuple(_cls_set_record(scaled, names) for scaled in recorder.scaled),
        regions=tuple(_region_record(region, names) for region in recorder.regions),
        norms=tuple(
            NormRecord(name, folded_into.get(module, ""), recorder.not_folded.get(module, ""))
            for module, name in names.items()
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        ),
        high_bias_fold=high_bias_fold,
    )


def _cls_set_record(scaled: ScaledSet, names: dict[torch.nn.Module, str]) -> ClsSetRecord:
    return ClsSetRecord(
        tuple(names[layer] for layer in scaled.layers),
        scaled.blocks or (),
        tuple(Span(float(scales.min()), float(scales.max())) for scales in scaled.scales),
    )


def _region_record(region: ScaledRegion, names: dict[torch.nn.Module, str]) -> RegionRecord:
    return RegionRecord(
        tuple(names[layer] for layer in region.sources),
        tuple(names[layer] for layer in region.sinks),
        Span(float(region.scales.min()), float(region.scales.max())),
        len(region.scales),
    )


def _layer_record(
    layer: Any,
    recorder: Recorder,
    names: dict[torch.nn.Module, str],
    reasons: dict[torch.nn.Module, str],
) -> LayerRecord:
    blocks = layer_blocks(layer)
    own_sets = [scaled.layers for scaled in recorder.scaled if layer in scaled.layers]
    moves = [absorption for absorption in recorder.absorptions if absorption.source is layer]
    moved = next((move for move in moves if move.channels), None)
    before = recorder.ranges_before.get(layer)
    return LayerRecord(
        name=names[layer],
        kind=_kind(layer),
        blocks_out=blocks.blocks_out if blocks else (),
        roles=_roles(layer, recorder),
        cls_sets=tuple(tuple(names[member] for member in cls_set) for cls_set in own_sets),
        regions=tuple(
            number
            for number, region in enumerate(recorder.regions, 1)
            if layer in region.sources or layer in region.sinks
        ),
        ranges_before=None if before is None else _span(before),
        ranges_after=None if before is None else _span(output_ranges(layer)),
        absorbed_into=names[moved.sink] if moved else "",
        absorbed_channels=moved.channels if moved else 0,
        not_absorbed="; ".join(Counter(move.reason for move in moves if move.reason)),
        reason=reasons.get(layer, ""),
    )


def _roles(layer: torch.nn.Module, recorder: Recorder) -> tuple[str, ...]:
    sources = {scaled.layers[0] for scaled in recorder.scaled}
    depthwise = {scaled.layers[1] for scaled in recorder.scaled if len(scaled.layers) == 3}
    sinks = {scaled.layers[-1] for scaled in recorder.scaled}
    for region in recorder.regions:
        sources.update(region.sources)
        sinks.update(region.sinks)
    members = {"sink": sinks, "depthwise": depthwise, "source": sources}
    return tuple(role for role, layers in members.items() if layer in layers)


def _kind(layer: Any) -> str:
    if not is_convolution(layer):
        return type(layer).__name__
    kernel = "×".join(str(size) for size in layer.kernel_size)
    groups = f", groups={layer.groups}" if layer.groups > 1 else ""
    return f"{type(layer).__name__} {kernel}{groups}"


def _span(ranges: torch.Tensor) -> Span:
    alive = ranges[ranges > 0]
    if alive.numel() == 0:
        return Span(0.0, 0.0)
    return Span(float(alive.min()), float(alive.max()))
