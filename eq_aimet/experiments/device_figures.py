"""The figures of the exported files on the device: size, speed, and whether a turn changes the logits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.deploy.verification_report import VerificationReport

__all__ = ["DeviceFigures"]


@dataclass(frozen=True)
class DeviceFigures:
    """The measurements of one model's ONNX files in the runtime.

    Attributes:
        runtime: The runtime and its version.
        fp32_bytes: The size of the FP32 file.
        int8_bytes: The size of the INT8 file.
        fp32_milliseconds: The median time of the FP32 file for one image on one thread.
        int8_milliseconds: The median time of the INT8 file for one image on one thread.
        turns: The turns and flips that were tried, e.g. "90°".
        images: The number of images that were turned.
        worst_change: The largest change of a logit of the INT8 file under the turns, relative to the largest
            logit.
        bit_identical: False if a turn changed any bit of the logits. True if the verification proved that no
            turn changes a bit. None if the verification proved neither.
        unverified: The reasons why the verification proves nothing, e.g. that all logits are equal.

    Example:
        >>> figures = DeviceFigures("onnxruntime", 2_000_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> figures.size_ratio
        0.13
    """

    runtime: str
    fp32_bytes: int
    int8_bytes: int
    fp32_milliseconds: float
    int8_milliseconds: float
    turns: tuple[str, ...]
    images: int
    worst_change: float
    bit_identical: bool | None
    unverified: tuple[str, ...] = ()

    @classmethod
    def from_report(cls, report: VerificationReport, fp32_file: Path) -> DeviceFigures:
        """Return the table's figures from a verification report and the FP32 file."""
        changed = any(check.changed for check in report.elements)
        return cls(
            runtime=report.runtime,
            fp32_bytes=fp32_file.stat().st_size,
            int8_bytes=report.file_bytes,
            fp32_milliseconds=report.latency.float_model,
            int8_milliseconds=report.latency.deployed,
            turns=tuple(dict.fromkeys(check.element for check in report.elements)),
            images=report.images,
            worst_change=max((check.worst for check in report.elements), default=0.0),
            bit_identical=False if changed else report.is_bit_exact or None,
            unverified=report.unverified,
        )

    @property
    def size_ratio(self) -> float:
        """The size of the INT8 file over the size of the FP32 file."""
        return self.int8_bytes / self.fp32_bytes

    @property
    def latency_ratio(self) -> float:
        """The time of the INT8 file over the time of the FP32 file."""
        return self.int8_milliseconds / self.fp32_milliseconds

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON, with the ratios."""
        return {**asdict(self), "size_ratio": self.size_ratio, "latency_ratio": self.latency_ratio}
