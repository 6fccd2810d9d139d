"""The report of a calibration without data: each range and its origin."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["CalibrationReport", "QuantizedRange"]

Origin = Literal["input", "statistics", "bounds", "inputs"]


@dataclass(frozen=True)
class QuantizedRange:
    """The range of one activation encoding.

    Attributes:
        name: The module's name in the model; an input encoding has the suffix ` (input)`.
        lowest: The encoding's minimum.
        highest: The encoding's maximum.
        origin: `"input"` if an input encoding comes from the input range or a constant; `"statistics"` if the
            range comes from the layer's own batch norm; `"bounds"` if the layer has no statistics and the
            range comes from its weight and inputs; `"inputs"` for a module between layers.
    """

    name: str
    lowest: float
    highest: float
    origin: Origin


@dataclass(frozen=True)
class CalibrationReport:
    """The ranges that `calibrate_without_data` set.

    Attributes:
        standard_deviations: The n of the ranges mean ± n·σ.
        input_range: The argument `input_range`: the lowest and highest value of the model's inputs.
        layers: The layers whose outputs have statistics.
        bounded: The convolutions and linear layers without statistics.
        ranges: The activation encodings, in the order of the model's modules.
    """

    standard_deviations: float
    input_range: tuple[float, float]
    layers: tuple[str, ...]
    bounded: tuple[str, ...]
    ranges: tuple[QuantizedRange, ...]

    def __str__(self) -> str:
        width = max([len("encoding"), *(len(entry.name) for entry in self.ranges)])
        lines = [
            f"{len(self.layers)} layers by mean ± {self.standard_deviations:g}σ of their batch norms, "
            f"{len(self.bounded)} without statistics by the bounds of their outputs",
            f"{'encoding':<{width}}  {'lowest':>9}  {'highest':>9}  from",
        ]
        lines += [
            f"{entry.name:<{width}}  {entry.lowest:>9.3f}  {entry.highest:>9.3f}  {entry.origin}"
            for entry in self.ranges
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            "standard_deviations": self.standard_deviations,
            "input_range": list(self.input_range),
            "layers": list(self.layers),
            "bounded": list(self.bounded),
            "ranges": [asdict(entry) for entry in self.ranges],
        }
