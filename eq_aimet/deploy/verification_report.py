"""The report of `verify_onnx` on a deployed file, and the judgement on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.deploy.runtimes.onnxruntime import PRECISE_OPTION
from eq_aimet.deploy.runtimes.runtime import OperatorCount
from eq_aimet.errors import EquivarianceError

__all__ = ["ElementCheck", "Fidelity", "Latency", "VerificationReport", "assert_bit_exact"]

# In float64, a simulation whose integers are symmetric changes by rounding at most.
_EXACT_SIMULATION = 1e-9


@dataclass(frozen=True)
class ElementCheck:
    """How one output for turned images compares with the output for the images as they are.

    Attributes:
        element: The turn or flip, e.g. `90°`.
        threads: The number of threads of the runtime.
        changed: The number of images for which any bit of the output changed.
        worst: The largest change, relative to the largest magnitude of the output.
        output: The name of the output: "output" for a single one, else its place, e.g. "0" or "boxes".
    """

    element: str
    threads: int
    changed: int
    worst: float
    output: str = "output"


@dataclass(frozen=True)
class Fidelity:
    """How close the file is to the simulation that it came from; of several outputs the worst one counts.

    Attributes:
        top1_agreement: The share of images for which file and simulation choose the same class; of the
            positions for outputs with a grid. NaN if no output has several channels.
        sqnr_sim: The signal to quantization noise ratio of the simulation's outputs in dB, against the FP32
            model.
        sqnr_deployed: The same of the file's outputs.
        sqnr_to_sim: The same of the file's outputs against the simulation.
        reference_images: The number of images that the integer reference evaluated.
        reference_difference: The largest difference of the file's outputs from the integer reference.
    """

    top1_agreement: float
    sqnr_sim: float
    sqnr_deployed: float
    sqnr_to_sim: float
    reference_images: int
    reference_difference: float


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one run on one thread; FP32 and INT8 take turns.

    Attributes:
        float_model: The FP32 model.
        deployed: The file.
        runs: The number of runs of each.
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
    """The findings of `verify_onnx`.

    Attributes:
        path: The file.
        runtime: The runtime and its version.
        images: The number of images that were run.
        elements: One check for each exact element, number of threads, and output. It is empty if the model
            has no exact element but the identity.
        fidelity: How close the file is to the simulation.
        latency: The file's speed beside the FP32 model.
        file_bytes: The size of the file.
        float_bytes: The size of the FP32 model's file.
        operators: The operators that the runtime runs, and their arithmetic.
        is_portable: Whether the weights keep to [-64, 63].
        is_exact_when_precise: Whether the session option `session.x64quantprecision` makes the file exact;
            `None` if that was not tried, or if onnxruntime can't open the file with it.
        unverified: Why the comparison proves nothing, e.g. because all outputs are equal.
        simulation_error: The simulation's own `equivariance_error` in float64; `None` if it was not measured,
            because the file is exact.
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
    unverified: tuple[str, ...] = ()
    simulation_error: float | None = None

    @property
    def is_bit_exact(self) -> bool:
        """Whether finite and varied outputs were compared, and no bit changed under any exact element."""
        return bool(self.elements) and not self.unverified and not self._changed

    @property
    def has_nothing_to_judge(self) -> bool:
        """Whether no turn or reflection but the identity is exact for the model."""
        return not self.elements

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change if the outputs are not exact; empty if they are."""
        if not self._changed:
            return self.unverified
        advice = list(self.unverified)
        if not self.is_portable:
            advice.append("Call `make_portable(sim)` and export again: int8 kernels without VNNI saturate.")
        if self.is_exact_when_precise:
            advice.append(f'Or set the session option {PRECISE_OPTION} to "1": the file is exact with it.')
        return (*advice, *self._causes())

    def assert_bit_exact(self) -> None:
        """Raise unless the outputs are bit-identical under all exact elements.

        A model that has no exact element but the identity passes: there is nothing to judge.

        Raises:
            EquivarianceError: If any output changed, or if the comparison proves nothing. The text says what
                to change.
        """
        if self.is_bit_exact or (self.has_nothing_to_judge and not self.unverified):
            return
        if not self._changed:
            raise EquivarianceError(f"{self.path} was not verified: {' '.join(self.unverified)}")
        worst = max(self.elements, key=lambda check: (check.changed > 0, check.worst, check.changed))
        several = len({check.output for check in self.elements}) > 1
        output = f"the output {worst.output!r}" if several else "the outputs"
        raise EquivarianceError(
            f"{self.path} is not bit-exact on {self.runtime}: under {worst.element} at {worst.threads} "
            f"thread(s) {output} of {worst.changed} of {self.images} images changed, by up to "
            f"{worst.worst:.2e} of the largest. {' '.join(self.advice)}"
        )

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
            *self._element_lines(),
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
            remark = "  depends on the order of summation" if operator.depends_on_order else ""
            lines.append(f"{operator.name:<28}{operator.arithmetic:<12}{operator.count:>5}{remark}")
        return "\n".join([*lines, *([""] if self.advice else []), *self.advice])

    @property
    def _changed(self) -> bool:
        return any(check.changed for check in self.elements)

    def _causes(self) -> list[str]:
        """Return what was measured about the cause of a change."""
        causes = []
        error = self.simulation_error
        is_simulation_exact = error is not None and error <= _EXACT_SIMULATION
        if error is not None and not is_simulation_exact:
            causes.append(
                f"The simulation itself is not equivariant: its outputs change by {error:.1e} in float64, "
                "see `equivariance_error(sim.model, images)`. An output that the group acts on needs "
                "`transform_output`."
            )
        summing = [operator.name for operator in self.operators if operator.depends_on_order]
        if summing:
            causes.append(
                f"These operators add up floats, and a turn changes the order: {', '.join(summing)}. AIMET "
                "quantizes modules only: write a function as a module (`torch.nn.AdaptiveAvgPool2d(1)` for "
                "`x.mean((2, 3))`), and give its input and output quantizers in AIMET's configuration."
            )
        if is_simulation_exact and not summing and self.is_portable:
            causes.append(
                "The cause is not known: the simulation is exact in float64, and no operator of the file "
                "adds up floats."
            )
        return causes

    def _element_lines(self) -> list[str]:
        if self.has_nothing_to_judge:
            return ["Nothing to judge: no turn or reflection but the identity is exact for this model."]
        several = len({check.output for check in self.elements}) > 1
        lines = [f"{'element':<12}{'threads':>8}{'changed':>9}{'worst':>15}{'  output' if several else ''}"]
        for check in self.elements:
            worst = "bit-identical" if not check.changed else f"{check.worst:.2e}"
            name = f"  {check.output}" if several else ""
            lines.append(f"{check.element:<12}{check.threads:>8}{check.changed:>9}{worst:>15}{name}")
        return lines


def assert_bit_exact(report: VerificationReport) -> None:
    """Raise unless the outputs are bit-identical under all exact elements: `report.assert_bit_exact()`.

    Raises:
        EquivarianceError: If any output changed, or if the comparison proves nothing. The text says what to
            change.
    """
    report.assert_bit_exact()


def _difference(fidelity: Fidelity) -> str:
    if not fidelity.reference_images:
        return "not run"
    exact = fidelity.reference_difference == 0
    found = "bit-identical" if exact else f"differs by up to {fidelity.reference_difference:.2e}"
    return f"{found} on {fidelity.reference_images} images"
