"""The report of an export: what is in the file, and where it will be exact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.deploy.onnx.arrangement import Rewriting
from eq_aimet.deploy.onnx.orbit_storage import StoredWeight

__all__ = ["OnnxReport"]

_EVERYWHERE = (
    "onnxruntime on any x86-64, default session",
    "runtimes that accumulate in int32 without saturation at int16 pairs of 255·64",
)
_SOMEWHERE = (
    "onnxruntime on x86-64 with VNNI, default session",
    "onnxruntime on x86-64 without VNNI only with the session option session.x64quantprecision=1",
)


@dataclass(frozen=True)
class OnnxReport:
    """What `export_onnx` wrote.

    Attributes:
        path: The ONNX file.
        encodings: AIMET's encodings file beside it.
        float_model: The FP32 ONNX file that the encodings belong to, or an empty string.
        storage: "orbits" or "plain".
        file_bytes: The size of the ONNX file.
        weights: How the weight of each layer that carries actions is stored.
        rewritten: The operators that were rewritten for the runtime's integer kernels.
        aligned_biases: The biases that had to be quantized anew to the scale of their layer's sums.
        wide_weights: The weights outside [-64, 63], on which kernels without VNNI saturate.
    """

    path: str
    encodings: str
    float_model: str
    storage: str
    file_bytes: int
    weights: tuple[StoredWeight, ...]
    rewritten: tuple[Rewriting, ...]
    aligned_biases: tuple[str, ...]
    wide_weights: tuple[str, ...]

    @property
    def is_portable(self) -> bool:
        """Whether all integer weights are in [-64, 63]."""
        return not self.wide_weights

    @property
    def exact_on(self) -> tuple[str, ...]:
        """Where the outputs will not depend on the order of summation."""
        return _EVERYWHERE if self.is_portable else _SOMEWHERE

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {**asdict(self), "is_portable": self.is_portable, "exact_on": list(self.exact_on)}

    def __str__(self) -> str:
        compact = [weight for weight in self.weights if not weight.reason]
        whole = sum(weight.bytes_plain for weight in compact)
        stored = sum(weight.bytes_stored for weight in compact)
        rows = [
            ("file", f"{self.path}, {self.file_bytes:,} bytes"),
            ("encodings", self.encodings),
            ("storage", self.storage),
            ("weights by orbit", f"{len(compact)} layers, {stored:,} bytes instead of {whole:,}"),
            ("rewritten", f"{len(self.rewritten)} operators"),
            ("biases aligned", f"{len(self.aligned_biases)}"),
            ("weights in [-64, 63]", "all" if self.is_portable else f"all but {len(self.wide_weights)}"),
            *(("exact on", place) for place in self.exact_on),
        ]
        if self.float_model:
            rows.insert(2, ("FP32 model", self.float_model))
        if not self.is_portable:
            rows.append(("to make it exact", "call `make_portable(sim)` before the export"))
        lines = [f"{title:<22}{text}" for title, text in rows]
        return "\n".join(
            [
                *lines,
                *(
                    f"{weight.name}: stored whole, {weight.reason}"
                    for weight in self.weights
                    if weight.reason
                ),
            ]
        )
