"""The report of an equalization: each layer, what was done to it, or why it was left out."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch

from eq_aimet.aimet.equalization.left_out_reasons import reasons_left_out
from eq_aimet.aimet.equalization.recorder import Recorder, ScaledSet, output_ranges
from eq_aimet.aimet.equalization.region_scaling import ScaledRegion
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import is_convolution, is_layer

__all__ = [
    "ClsSetRecord",
    "EqualizationReport",
    "LayerRecord",
    "NormRecord",
    "RegionRecord",
    "Span",
    "make_report",
]


@dataclass(frozen=True)
class Span:
    """The smallest and the largest of some positive numbers."""

    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{self.smallest:.3g}…{self.largest:.3g}"


@dataclass(frozen=True)
class ClsSetRecord:
    """A CLS set that was scaled.

    Attributes:
        layers: The names of source, (depthwise layer,) and sink.
        blocks: Sizes of the blocks on which the scales are constant; empty where no layer of the set has
            blocks.
        scales: The smallest and largest scale at each joint, one joint for a pair and two for a triplet.
    """

    layers: tuple[str, ...]
    blocks: tuple[int, ...]
    scales: tuple[Span, ...]


@dataclass(frozen=True)
class RegionRecord:
    """A region that was scaled: what AIMET's CLS sets do not reach.

    Attributes:
        sources: The names of the layers that write its channels.
        sinks: The names of the layers that read them.
        scales: The smallest and largest of its independent scales.
        count: How many independent scales it has.
    """

    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    scales: Span
    count: int


@dataclass(frozen=True)
class LayerRecord:
    """What was done to one convolution or linear layer.

    Attributes:
        name: Its dotted name.
        kind: Its class, kernel and groups.
        blocks_out: Sizes of the blocks of its output channels; empty if it carries none.
        roles: What it is in its CLS sets and regions: source, depthwise or sink.
        cls_sets: The names of the members of its CLS sets.
        regions: The numbers of its regions in the report, counted from 1.
        ranges_before: Smallest and largest range of its output blocks after batch-norm folding, before
            scaling; dead blocks are not counted. `None` if the layer did not run.
        ranges_after: The same after equalization.
        absorbed_into: The layer that took some of its bias, or an empty string.
        absorbed_channels: How many channels lost some.
        not_absorbed: Why the high-bias fold moved nothing.
        reason: Why it is in no CLS set and no region; empty if it was equalized.
    """

    name: str
    kind: str
    blocks_out: tuple[int, ...]
    roles: tuple[str, ...]
    cls_sets: tuple[tuple[str, ...], ...]
    regions: tuple[int, ...]
    ranges_before: Span | None
    ranges_after: Span | None
    absorbed_into: str = ""
    absorbed_channels: int = 0
    not_absorbed: str = ""
    reason: str = ""


@dataclass(frozen=True)
class NormRecord:
    """A batch norm: the layer it was folded into, or an empty string if it is still there."""

    name: str
    folded_into: str


@dataclass(frozen=True)
class EqualizationReport:
    """What `equalize_equivariant` did: every layer is in it, equalized or left out with the reason.

    Attributes:
        layers: All convolutions and linear layers in execution order, then those that did not run.
        cls_sets: AIMET's CLS sets in the order in which they were scaled.
        regions: What lies beyond them: several sources and sinks, or pooling, sums and masks between.
        norms: All batch norms that the model had.
        high_bias_fold: The mode of the high-bias fold.
    """

    layers: tuple[LayerRecord, ...]
    cls_sets: tuple[ClsSetRecord, ...]
    regions: tuple[RegionRecord, ...]
    norms: tuple[NormRecord, ...]
    high_bias_fold: str

    @property
    def equalized(self) -> tuple[LayerRecord, ...]:
        """The layers that are in a CLS set or in a region."""
        return tuple(layer for layer in self.layers if layer.cls_sets or layer.regions)

    @property
    def left_out(self) -> tuple[LayerRecord, ...]:
        """The layers that are in neither, each with its `reason`."""
        return tuple(layer for layer in self.layers if not layer.cls_sets and not layer.regions)

    @property
    def summary(self) -> str:
        """One line with the numbers."""
        triplets = sum(len(cls_set.layers) == 3 for cls_set in self.cls_sets)
        pairs = len(self.cls_sets) - triplets
        folded = sum(bool(norm.folded_into) for norm in self.norms)
        absorbing = sum(bool(layer.absorbed_channels) for layer in self.layers)
        return (
            f"{_count(triplets, 'triplet')}, {_count(pairs, 'pair')} and "
            f"{_count(len(self.regions), 'region')} equalized; "
            f"{len(self.left_out)} of {_count(len(self.layers), 'layer')} left out; "
            f"{folded} of {_count(len(self.norms), 'batch norm')} folded; "
            f"{_count(absorbing, 'layer')} gave bias on"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as nested dicts and lists of plain numbers and strings, ready for JSON."""
        return {"summary": self.summary, **asdict(self)}

    def __str__(self) -> str:
        header = ("layer", "kind", "blocks", "role", "ranges before", "ranges after", "scales", "bias to")
        rows = [header, *(self._row(layer) for layer in self.layers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        notes = [
            f"region {number}: {', '.join(region.sources)} → {', '.join(region.sinks)}; "
            f"scales {region.scales}"
            for number, region in enumerate(self.regions, 1)
        ]
        notes += [f"left out: {layer.name}: {layer.reason}" for layer in self.left_out]
        notes += [f"not folded: batch norm {norm.name}" for norm in self.norms if not norm.folded_into]
        return "\n".join([line.rstrip() for line in lines] + notes + [self.summary])

    def _row(self, layer: LayerRecord) -> tuple[str, ...]:
        scales = [
            str(span)
            for cls_set in self.cls_sets
            for source, span in zip(cls_set.layers, cls_set.scales, strict=False)
            if source == layer.name
        ]
        scales += [f"region {number}" for number in layer.regions]
        bias_to = f"{layer.absorbed_into} ({layer.absorbed_channels})" if layer.absorbed_channels else ""
        return (
            layer.name,
            layer.kind,
            describe_blocks(layer.blocks_out),
            ", ".join(layer.roles) or "left out",
            str(layer.ranges_before or ""),
            str(layer.ranges_after or ""),
            ", ".join(scales),
            bias_to,
        )


def describe_blocks(blocks: tuple[int, ...]) -> str:
    """Return e.g. `20×8 + 4×1`.

    Example:
        >>> describe_blocks((8, 8, 1))
        '2×8 + 1×1'
    """
    return " + ".join(f"{len(list(run))}×{size}" for size, run in groupby(blocks))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def make_report(
    recorder: Recorder, names: dict[torch.nn.Module, str], high_bias_fold: str
) -> EqualizationReport:
    """Return the report of an equalization.

    Args:
        recorder: What the hooks saw.
        names: The dotted name of each module that the model had before.
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
            NormRecord(name, folded_into.get(module, ""))
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
