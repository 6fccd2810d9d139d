"""The report of an export: the content of the file, and the processors on which its outputs are exact."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.deploy.onnx.arrangement import Rewriting
from eq_aimet.deploy.onnx.orbit_storage import StoredWeight
from eq_aimet.deploy.runtimes.runtime import OperatorCount

__all__ = ["OnnxReport"]

_EVERYWHERE = (
    "{runtime} on x86-64, default session",
    "runtimes that run the same operators in integers, with int16 sums or wider",
)
_SOMEWHERE = (
    "{runtime} on x86-64 with VNNI, default session",
    "{runtime} on x86-64 without VNNI only with the session option session.x64quantprecision=1",
)


@dataclass(frozen=True)
class OnnxReport:
    """The files that `export_onnx` wrote.

    Attributes:
        path: The ONNX file.
        encodings: AIMET's encodings file beside it.
        float_model: The FP32 ONNX file that the encodings belong to, or an empty string.
        storage: "orbits" or "plain".
        file_bytes: The size of the ONNX file.
        weights: How the weight of each layer that carries actions is stored.
        rewritten: The operators that were rewritten for the runtime's integer kernels.
        aligned_biases: The biases that were quantized again, with the scale of their layer's sums.
        wide_weights: The weights outside [-64, 63], on which kernels without VNNI saturate.
        raised_weights: The weights whose scale is larger in the file than in the simulation, so that the
            biases fit into int32.
        runtime: The runtime that opened the file to list its operators, and its version.
        operators: The operators into which the runtime compiles the file, and their arithmetic.
        unopened: The reason if the runtime can't open the file, else an empty string.
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
    raised_weights: tuple[str, ...] = ()
    runtime: str = ""
    operators: tuple[OperatorCount, ...] = ()
    unopened: str = ""

    @property
    def is_portable(self) -> bool:
        """Whether all integer weights are in [-64, 63]."""
        return not self.wide_weights

    @property
    def float_sums(self) -> tuple[str, ...]:
        """The operators that add up floats in the runtime, so that a turn may change their last bits."""
        return tuple(operator.name for operator in self.operators if operator.depends_on_order)

    @property
    def exact_on(self) -> tuple[str, ...]:
        """The places where no output depends on the order of summation; empty if no such place is known."""
        if self.float_sums or self.unopened or not self.operators:
            return ()
        return tuple(
            place.format(runtime=self.runtime) for place in (_EVERYWHERE if self.is_portable else _SOMEWHERE)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            **asdict(self),
            "is_portable": self.is_portable,
            "exact_on": list(self.exact_on),
            "float_sums": list(self.float_sums),
        }

    def __str__(self) -> str:
        compact = [weight for weight in self.weights if not weight.reason]
        whole = sum(weight.bytes_plain for weight in compact)
        stored = sum(weight.bytes_stored for weight in compact)
        rows = [
            ("file", f"{self.path}, {self.file_bytes:,} bytes"),
            ("encodings", self.encodings),
            *([("FP32 model", self.float_model)] if self.float_model else []),
            ("storage", self.storage),
            ("weights by orbit", f"{len(compact)} layers, {stored:,} bytes instead of {whole:,}"),
            ("rewritten", f"{len(self.rewritten)} operators"),
            ("biases aligned", f"{len(self.aligned_biases)}"),
            ("weights in [-64, 63]", "all" if self.is_portable else f"all but {len(self.wide_weights)}"),
            *(("scale raised", f"{name}, so that its biases fit into int32") for name in self.raised_weights),
            *(("exact on", place) for place in self.exact_on),
        ]
        if self.float_sums:
            rows.append(("not exact", f"these operators add up floats: {', '.join(self.float_sums)}"))
        if self.unopened:
            rows.append(("not opened", self.unopened))
        if not self.is_portable:
            rows.append(("to make it exact", "call `make_portable(sim)` before the export"))
        lines = [f"{title:<22}{text}" for title, text in rows]
        reasons = [f"{one.name}: stored whole, {one.reason}" for one in self.weights if one.reason]
        return "\n".join([*lines, *reasons])
