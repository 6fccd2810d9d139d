"""The report of `verify_onnx` on a deployed file, and the judgement on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.deploy.findings import ElementCheck, Fidelity, Latency, RuntimeFinding
from eq_aimet.deploy.runtimes.onnxruntime import PRECISE_OPTION
from eq_aimet.deploy.runtimes.runtime import OperatorCount
from eq_aimet.errors import EquivarianceError

__all__ = ["VerificationReport", "assert_bit_exact"]

# In float64, a simulation whose integers are symmetric changes by rounding at most.
_EXACT_SIMULATION = 1e-9


@dataclass(frozen=True)
class VerificationReport:
    """The findings of `verify_onnx`.

    Attributes:
        path: The file.
        runtime: onnxruntime and its version; latency, fidelity and operators are measured there.
        images: The number of images that were run.
        elements: One check for each runtime, exact element, number of threads, and output. It is empty if
            the model has no exact element but the identity.
        fidelity: How close the file is to the simulation.
        latency: The file's speed beside the FP32 model.
        file_bytes: The size of the file.
        float_bytes: The size of the FP32 model's file.
        operators: The operators that the runtime runs, and their arithmetic.
        is_portable: Whether all integer weights are in [-64, 63].
        is_exact_when_precise: Whether the session option `session.x64quantprecision` makes the file exact;
            `None` if the option was not tried, or if onnxruntime can't open the file with the option.
        unverified: Why the comparison proves nothing, e.g. because all outputs are equal.
        simulation_error: The simulation's own `equivariance_error` in float64; `None` if it was not measured,
            because the file is exact.
        network_error: The `equivariance_error` of the FP32 model, measured if the simulation is not
            equivariant.
        runtimes: The result of each runtime on the file.
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
    network_error: float | None = None
    runtimes: tuple[RuntimeFinding, ...] = ()

    @property
    def is_bit_exact(self) -> bool:
        """Whether each runtime gave finite and varied outputs, and no bit changed under any exact element."""
        return bool(self.elements) and not self.unverified and not self._changed and not self._failures

    @property
    def has_nothing_to_judge(self) -> bool:
        """Whether no turn or reflection but the identity is exact for the model."""
        return not self.elements

    @property
    def advice(self) -> tuple[str, ...]:
        """The changes that can make the outputs exact; empty if the outputs are exact."""
        advice = [*self.unverified, *self._failures]
        if not self._changed:
            return tuple(advice)
        error = self.simulation_error
        if error is not None and error > _EXACT_SIMULATION:
            return (*advice, *self._causes_in_the_simulation(error))
        if not self.is_portable:
            advice.append("Call `make_portable(sim)` and export again: int8 kernels without VNNI saturate.")
        if self.is_exact_when_precise:
            advice.append(f'Or set the session option {PRECISE_OPTION} to "1": the file is exact with it.')
        return (*advice, *self._causes_in_the_file())

    def assert_bit_exact(self) -> None:
        """Raise unless the outputs are bit-identical under all exact elements.

        A model that has no exact element but the identity passes: there is nothing to judge.

        Raises:
            EquivarianceError: If any output changed, or if the comparison proves nothing. The text says what
                to change.
        """
        reasons = (*self.unverified, *self._failures)
        if self.is_bit_exact or (self.has_nothing_to_judge and not reasons):
            return
        if not self._changed:
            raise EquivarianceError(f"{self.path} was not verified: {' '.join(reasons)}")
        worst = max(self.elements, key=lambda check: (check.changed > 0, check.worst, check.changed))
        several = len({check.output for check in self.elements}) > 1
        output = f"the output {worst.output!r}" if several else "the outputs"
        raise EquivarianceError(
            f"{self.path} is not bit-exact on {worst.runtime or self.runtime}: under {worst.element} "
            f"at {worst.threads} thread(s) {output} of {worst.changed} of {self.images} images changed, by "
            f"up to {worst.worst:.2e} of the largest. {' '.join(self.advice)}"
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
            *map(str, self.runtimes),
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

    @property
    def _failures(self) -> tuple[str, ...]:
        return tuple(str(finding) for finding in self.runtimes if finding.failure)

    def _causes_in_the_simulation(self, error: float) -> list[str]:
        """Return the measured facts about a simulation that is not equivariant."""
        network = self.network_error
        if network is not None and network > _EXACT_SIMULATION:
            return [
                f"The FP32 network itself is not equivariant on these images: its outputs change by "
                f"{network:.1e} in float64, see `equivariance_error(plain, images)`. A frequent reason is a "
                "stride that does not fit the grid, so that a layer does not read the last row and column. "
                "An output that the group acts on needs `transform_output`."
            ]
        measured = "" if network is None else f" The FP32 network is: its outputs change by {network:.1e}."
        return [
            f"The simulation itself is not equivariant: its outputs change by {error:.1e} in float64, see "
            f"`equivariance_error(sim.model, images)`.{measured} An output that the group acts on needs "
            "`transform_output`.",
            *self._float_sums(),
        ]

    def _causes_in_the_file(self) -> list[str]:
        """Return the measured facts about a file that is not exact."""
        summing = self._float_sums()
        if summing or self.simulation_error is None or not self.is_portable:
            return summing
        return [
            "The cause is not known: the simulation is exact in float64, and no operator that onnxruntime "
            "runs adds up floats."
        ]

    def _float_sums(self) -> list[str]:
        summing = [operator.name for operator in self.operators if operator.depends_on_order]
        if not summing:
            return []
        return [
            f"These operators add up floats, and a turn changes the order: {', '.join(summing)}. AIMET "
            "quantizes modules only: write a function as a module (`torch.nn.AdaptiveAvgPool2d(1)` for "
            "`x.mean((2, 3))`), and give its input and output quantizers in AIMET's configuration."
        ]

    def _element_lines(self) -> list[str]:
        if self.has_nothing_to_judge:
            return ["Nothing to judge: no turn or reflection but the identity is exact for this model."]
        several = len({check.output for check in self.elements}) > 1
        many = len({check.runtime for check in self.elements}) > 1
        lines = [
            f"{'element':<12}{'threads':>8}{'changed':>9}{'worst':>15}{'steps':>8}"
            f"{'  output' if several else ''}{'  runtime' if many else ''}"
        ]
        for check in self.elements:
            worst = "bit-identical" if not check.changed else f"{check.worst:.2e}"
            steps = "–" if check.steps is None else f"{check.steps:.0f}"
            name = f"  {check.output}" if several else ""
            runtime = f"  {check.runtime}" if many else ""
            lines.append(
                f"{check.element:<12}{check.threads:>8}{check.changed:>9}{worst:>15}{steps:>8}{name}{runtime}"
            )
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
