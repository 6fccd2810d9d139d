"""The report of an equalization: each layer, what was done to it, or why it was left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.symmetry.layers import describe_blocks

__all__ = [
    "ClsSetRecord",
    "EqualizationReport",
    "LayerRecord",
    "NormRecord",
    "RegionRecord",
    "Span",
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
    """A scaled region: layers that AIMET's CLS sets do not reach.

    Attributes:
        sources: The names of the layers that write the region's channels.
        sinks: The names of the layers that read the region's channels.
        scales: The smallest and the largest independent scale of the region.
        count: The number of independent scales.
    """

    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    scales: Span
    count: int


@dataclass(frozen=True)
class LayerRecord:
    """The changes to one convolution or linear layer.

    Attributes:
        name: The layer's dotted name.
        kind: The layer's class, kernel and groups.
        blocks_out: The sizes of the blocks of the output channels; empty if the layer carries no blocks.
        roles: The layer's roles in its CLS sets and regions: source, depthwise or sink.
        cls_sets: The names of the members of its CLS sets.
        regions: The numbers of its regions in the report, counted from 1.
        ranges_before: Smallest and largest range of its output blocks after batch-norm folding, before
            scaling; dead blocks are not counted. `None` if the layer did not run.
        ranges_after: The same after equalization.
        absorbed_into: The layer that took some of its bias, or an empty string.
        absorbed_channels: The number of channels that lost bias.
        not_absorbed: The reason if the high-bias fold moved no bias.
        reason: The reason if the layer is in no CLS set and no region; empty if it was equalized.
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
    """A batch norm.

    Attributes:
        name: Its dotted name.
        folded_into: The name of the layer that it was folded into, or an empty string if it is still there.
        reason: Why it is still there, or an empty string.
    """

    name: str
    folded_into: str
    reason: str = ""


@dataclass(frozen=True)
class EqualizationReport:
    """The report of `equalize_equivariant`: every layer, either equalized or left out with the reason.

    Attributes:
        layers: All convolutions and linear layers in execution order, then the layers that did not run.
        cls_sets: AIMET's CLS sets in the order in which they were scaled.
        regions: The other scaled groups: several sources or sinks, or pooling, sums and masks between layers.
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
        """The layers that are in no CLS set and in no region, each with its `reason`."""
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
        notes += [
            f"not folded: batch norm {norm.name}: {norm.reason}"
            for norm in self.norms
            if not norm.folded_into
        ]
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
            describe_blocks(layer.blocks_out) if layer.blocks_out else "",
            ", ".join(layer.roles) or "left out",
            str(layer.ranges_before or ""),
            str(layer.ranges_after or ""),
            ", ".join(scales),
            bias_to,
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
