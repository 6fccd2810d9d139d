"""The report of `correct_bias`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["BiasCorrectionReport", "CorrectedLayer"]


@dataclass(frozen=True)
class CorrectedLayer:
    """One layer whose bias was corrected.

    Attributes:
        name: The layer's full name in the model.
        taken_off: The amount that was subtracted from the bias of each output channel.
        error_before: The error of the layer's mean output before the correction: the root mean square, over
            the output channels, of the simulated mean minus the FP32 mean. The output is taken before its own
            quantizer. In a layer with tied channels, the means are those of the orbits of channels.
        error_after: The same error after the correction.
    """

    name: str
    taken_off: tuple[float, ...]
    error_before: float
    error_after: float

    def __repr__(self) -> str:
        return f"CorrectedLayer({self.name!r}, {self.error_before:.3g} -> {self.error_after:.3g})"


@dataclass(frozen=True)
class BiasCorrectionReport:
    """The biases that `correct_bias` corrected.

    Attributes:
        method: `"empirical"` if the errors were measured on data, `"analytic"` if they were computed from
            batch-norm statistics.
        layers: The corrected layers, in the order in which they run.
        left_out: The names of the other convolutions and linear layers, each with the reason.
    """

    method: Literal["empirical", "analytic"]
    layers: tuple[CorrectedLayer, ...]
    left_out: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max([len("layer"), *(len(layer.name) for layer in self.layers)])
        lines = [f"{'layer':<{width}}  largest taken off  mean's error before      after"]
        for layer in self.layers:
            largest = max(map(abs, layer.taken_off))
            lines.append(
                f"{layer.name:<{width}}  {largest:>17.3g}  {layer.error_before:>19.3g}"
                f"  {layer.error_after:>9.3g}"
            )
        return "\n".join([*lines, *(f"{name}: left out, {reason}" for name, reason in self.left_out)])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            "method": self.method,
            "layers": [asdict(layer) for layer in self.layers],
            "left_out": dict(self.left_out),
        }
