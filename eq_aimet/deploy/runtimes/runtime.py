"""The interface of a runtime: it opens a file, runs batches, and names the operators that fell back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from eq_aimet.errors import InvalidArgumentError

__all__ = ["OpenedFile", "OperatorCount", "Runtime", "unfit_file"]


@dataclass(frozen=True)
class OperatorCount:
    """The number of operators of one type in a runtime's graph, and their arithmetic.

    Attributes:
        name: The operator's type.
        arithmetic: "integer", "float", or "crossing" if the operator converts between integers and floats.
        count: The number of such operators.
        depends_on_order: Whether the operator adds up floats, so that a turned image may change the last bits
            of its result.
    """

    name: str
    arithmetic: str
    count: int
    depends_on_order: bool


class OpenedFile(Protocol):
    """A file that a runtime has opened."""

    @property
    def fell_back(self) -> tuple[str, ...]:
        """The types of the operators that run on the host's processor and not on the runtime's device."""
        ...

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for one batch, in the file's order.

        Args:
            batch: One array per input of the file, of the batch size that the file was exported for.
        """
        ...


@runtime_checkable
class Runtime(Protocol):
    """A runtime on this machine."""

    @property
    def name(self) -> str:
        """The name and version, e.g. `onnxruntime 1.32.0`."""
        ...

    @property
    def has_threads(self) -> bool:
        """Whether the number of threads changes how the runtime computes."""
        ...

    def open(self, path: Path, *, threads: int) -> OpenedFile:
        """Open a file with the runtime's default options, except the number of threads.

        Raises:
            InvalidArgumentError: If the runtime can't open the file; the error quotes the runtime.
        """
        ...


def unfit_file(runtime: str, verb: str, error: Exception) -> InvalidArgumentError:
    """Return the error that says that a runtime can't open or run a file, with the runtime's own words.

    Args:
        runtime: The name of the runtime.
        verb: "open" or "run".
        error: The error that the runtime raised.
    """
    return InvalidArgumentError(
        "path",
        received=f"a file that {runtime} can't {verb} ({' '.join(str(error).split())})",
        expected=f"a file whose operators and types {runtime} knows",
        remedy="Upgrade the runtime, or export the simulation again with the versions that are installed.",
    )
