"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from eq_aimet.deploy.runtimes.packages import check_package
from eq_aimet.deploy.runtimes.runtime import unfit_file

__all__ = ["OpenVino", "OpenVinoFile"]


class OpenVino:
    """OpenVINO on the CPU, with default options except the number of threads.

    Raises:
        MissingPackageError: If openvino is not installed.
    """

    has_threads = True

    def __init__(self) -> None:
        check_package("openvino", "openvino", "openvino")

    @property
    def name(self) -> str:
        """The name and version."""
        return f"openvino {version('openvino')}"

    def open(self, path: Path, *, threads: int = 1) -> OpenVinoFile:
        """Open a file.

        Raises:
            InvalidArgumentError: If OpenVINO can't open the file.
        """
        core = import_module("openvino").Core()
        try:
            compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_NUM_THREADS": threads})
        except Exception as error:
            raise unfit_file(self.name, "open", error) from error
        return OpenVinoFile(self.name, compiled)


class OpenVinoFile:
    """A file that OpenVINO has opened.

    Args:
        runtime: The name of the runtime.
        compiled: The compiled model.

    Attributes:
        fell_back: Always empty: the processor is the device.
    """

    def __init__(self, runtime: str, compiled: Any) -> None:
        self._runtime = runtime
        self._compiled = compiled
        self.fell_back: tuple[str, ...] = ()

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for one batch.

        Raises:
            InvalidArgumentError: If OpenVINO fails while it runs the file.
        """
        try:
            results = self._compiled([np.ascontiguousarray(array) for array in batch])
        except Exception as error:
            raise unfit_file(self._runtime, "run", error) from error
        return [np.array(results[output]) for output in self._compiled.outputs]
