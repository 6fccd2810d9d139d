"""One runtime's part of a verification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eq_aimet.deploy.evidence import reasons_of_outputs
from eq_aimet.deploy.findings import ElementCheck, RuntimeFinding
from eq_aimet.deploy.measuring import worst_agreement, worst_ratio
from eq_aimet.deploy.runtimes.runtime import Runtime
from eq_aimet.deploy.turn_test import Outputs, TurnTest
from eq_aimet.errors import InvalidArgumentError

__all__ = ["RuntimeRun", "run_on"]


@dataclass(frozen=True)
class RuntimeRun:
    """The result of one runtime on a file.

    Attributes:
        finding: How the runtime ran the file.
        checks: One check for each exact element, number of threads, and output.
        unverified: Why the outputs prove nothing.
    """

    finding: RuntimeFinding
    checks: tuple[ElementCheck, ...] = ()
    unverified: tuple[str, ...] = ()


def run_on(runtime: Runtime, test: TurnTest, threads: Sequence[int], simulated: Outputs) -> RuntimeRun:
    """Run the test in a runtime; a runtime that can't open the file gives a run without checks.

    Args:
        runtime: The runtime.
        test: The file and the images.
        threads: The numbers of threads to run with; a runtime that does not use the host's threads runs once.
        simulated: The simulation's outputs for the images.

    Raises:
        InvalidArgumentError: If `transform_output` does not fit the outputs.
    """
    checks: list[ElementCheck] = []
    counts = threads if runtime.has_threads else threads[:1]
    try:
        for place, count in enumerate(counts):
            opened = runtime.open(test.file, threads=count)
            outputs = test.outputs(opened)
            if place == 0:
                single = len(test.images[0]) == 1
                unverified = reasons_of_outputs(outputs, test.probe(opened) if single else {})
                finding = RuntimeFinding(
                    runtime.name,
                    worst_agreement(outputs, simulated),
                    worst_ratio(outputs, simulated),
                    opened.fell_back,
                )
            checks += test.checks(opened, runtime.name, count, outputs)
    except InvalidArgumentError as error:
        if error.argument != "path":
            raise
        return RuntimeRun(RuntimeFinding(runtime.name, failure=str(error.received)))
    return RuntimeRun(finding, tuple(checks), unverified)
