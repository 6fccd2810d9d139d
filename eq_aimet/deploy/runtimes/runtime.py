"""The interface of a runtime: it opens a file, runs batches, and names the operators that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

__all__ = ["OpenedFile", "OperatorCount", "Runtime"]


@dataclass(frozen=True)
class OperatorCount:
    """How often a runtime runs an operator, and in which arithmetic.

    Attributes:
        name: The operator's type.
        arithmetic: "integer", "float", or "crossing" if the operator leads from one to the other.
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

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for one batch.

        Args:
            batch: One array per input of the file, of the batch size that the file was exported for.
        """
        ...


class Runtime(Protocol):
    """A runtime on this machine."""

    @property
    def name(self) -> str:
        """The name and version, e.g. `onnxruntime 1.32.0`."""
        ...

    def open(self, path: Path, *, threads: int) -> OpenedFile:
        """Open a file with the runtime's default options but for the number of threads."""
        ...

    def operators(self, path: Path) -> tuple[OperatorCount, ...]:
        """Return the operators that the runtime makes of a file, integer operators first."""
        ...
