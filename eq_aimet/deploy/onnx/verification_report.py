"""What a deployed file does: the report of `verify_onnx`, and the judgement on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.deploy.onnx.session import PRECISE_OPTION, OperatorCount
from eq_aimet.errors import EquivarianceError

__all__ = ["ElementCheck", "Fidelity", "Latency", "VerificationReport", "assert_bit_exact"]


@dataclass(frozen=True)
class ElementCheck:
    """How the outputs for turned images compare with those for the images as they are.

    Attributes:
        element: The turn or flip, e.g. `90°`.
        threads: The runtime's threads.
        changed: For how many images any bit of the output changed.
        worst: The largest change, relative to the largest output.
    """

    element: str
    threads: int
    changed: int
    worst: float


@dataclass(frozen=True)
class Fidelity:
    """How close the file is to the simulation that it came from.

    Attributes:
        top1_agreement: The share of images for which file and sim choose the same class; of the positions
            for outputs with a grid.
        sqnr_sim: Signal to quantization noise of the sim's outputs in dB, against the FP32 model's.
        sqnr_deployed: That of the file's.
        sqnr_to_sim: That of the file's outputs against the sim's.
        reference_images: How many images were evaluated with the integer reference.
        reference_difference: The largest difference of the file's outputs from the integer reference's.
    """

    top1_agreement: float
    sqnr_sim: float
    sqnr_deployed: float
    sqnr_to_sim: float
    reference_images: int
    reference_difference: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one run, FP32 and INT8 measured in turns; the medians.

    Attributes:
        float_model: Of the FP32 model.
        deployed: Of the file.
        runs: How many runs of each there were.
    """

    float_model: float
    deployed: float
    runs: int

    @property
    def ratio(self) -> float:
        """INT8 over FP32."""
        return self.deployed / self.float_model


@dataclass(frozen=True)
class VerificationReport:
    """What `verify_onnx` found.

    Attributes:
        path: The file.
        runtime: The runtime and its version.
        images: How many images were run.
        elements: The check of each exact element at each number of threads.
        fidelity: How close the file is to the sim.
        latency: Its speed beside the FP32 model's, on one thread.
        file_bytes: Its size.
        float_bytes: The size of the FP32 model's file.
        operators: What the runtime runs, and in what arithmetic.
        is_portable: Whether the weights keep to [-64, 63].
        is_exact_when_precise: Whether the session option `session.x64quantprecision` makes it exact; `None`
            where it was not needed.
    """

    path: str
    runtime: str
    images: int
    elements: tuple[ElementCheck, ...]
    fidelity: Fidelity
    latency: Latency
    file_bytes: int
    float_bytes: int
    operators: tuple[OperatorCount, ...]
    is_portable: bool
    is_exact_when_precise: bool | None = None

    @property
    def is_bit_exact(self) -> bool:
        """Whether no output changed under any exact element."""
        return not any(check.changed for check in self.elements)

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change where the outputs are not exact; empty where they are."""
        if self.is_bit_exact:
            return ()
        advice = []
        if not self.is_portable:
            advice.append("Call `make_portable(sim)` and export again: int8 kernels without VNNI saturate.")
        if self.is_exact_when_precise:
            advice.append(f'Or set the session option {PRECISE_OPTION} to "1": the file is exact with it.')
        summing = [operator.name for operator in self.operators if operator.depends_on_order]
        if summing:
            advice.append(
                f"These operators add up floats, in an order that a turn changes: {', '.join(summing)}. "
                "Give their inputs and outputs quantizers."
            )
        if not advice:
            advice.append("The network itself is not equivariant: see `equivariance_error(sim.model, x)`.")
        return tuple(advice)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            **asdict(self),
            "is_bit_exact": self.is_bit_exact,
            "latency_ratio": self.latency.ratio,
            "advice": list(self.advice),
        }

    def __str__(self) -> str:
        fidelity, latency = self.fidelity, self.latency
        lines = [
            f"{self.path} on {self.runtime}, {self.images} images",
            "",
            f"{'element':<12}{'threads':>8}{'changed':>9}{'worst':>12}",
        ]
        for check in self.elements:
            worst = "bit-identical" if not check.changed else f"{check.worst:.2e}"
            lines.append(f"{check.element:<12}{check.threads:>8}{check.changed:>9}{worst:>15}")
        lines += [
            "",
            f"{'top-1 agreement with the sim':<32}{fidelity.top1_agreement:.2%}",
            f"{'SQNR of the sim':<32}{fidelity.sqnr_sim:.1f} dB",
            f"{'SQNR deployed':<32}{fidelity.sqnr_deployed:.1f} dB",
            f"{'SQNR against the sim':<32}{fidelity.sqnr_to_sim:.1f} dB",
            f"{'integer reference':<32}{_difference(fidelity)}",
            f"{'latency, one thread':<32}{latency.deployed:.2f} ms INT8, {latency.float_model:.2f} ms FP32 "
            f"({latency.ratio:.2f}×)",
            f"{'file':<32}{self.file_bytes:,} bytes INT8, {self.float_bytes:,} FP32 "
            f"({self.file_bytes / self.float_bytes:.3f}×)",
            "",
            f"{'operator':<28}{'arithmetic':<12}{'count':>5}",
        ]
        for operator in self.operators:
            mark = "  depends on the order of summation" if operator.depends_on_order else ""
            lines.append(f"{operator.name:<28}{operator.arithmetic:<12}{operator.count:>5}{mark}")
        return "\n".join([*lines, *([""] if self.advice else []), *self.advice])


def assert_bit_exact(report: VerificationReport) -> None:
    """Raise unless the outputs are bit-identical under all exact elements.

    Raises:
        EquivarianceError: If any output changed; the text says what to change.
    """
    if report.is_bit_exact:
        return
    worst = max(report.elements, key=lambda check: (check.worst, check.changed))
    raise EquivarianceError(
        f"{report.path} is not bit-exact on {report.runtime}: under {worst.element} at {worst.threads} "
        f"thread(s) the outputs of {worst.changed} of {report.images} images changed, by up to "
        f"{worst.worst:.2e} of the largest. {' '.join(report.advice)}"
    )


def _difference(fidelity: Fidelity) -> str:
    if not fidelity.reference_images:
        return "not run"
    exact = fidelity.reference_difference == 0
    found = "bit-identical" if exact else f"differs by up to {fidelity.reference_difference:.2e}"
    return f"{found} on {fidelity.reference_images} images"
