"""Qualcomm's HTP (the NPU of Snapdragon processors), by the package onnxruntime-qnn.

On x86 the package contains Qualcomm's emulation of the HTP. The emulation computes as the processor does, but
slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime

from eq_aimet.deploy.runtimes.packages import check_package
from eq_aimet.deploy.runtimes.runtime import unfit_file

__all__ = ["QnnHtp", "QnnHtpFile"]

_PROVIDER = "QNNExecutionProvider"
_NO_FALLBACK = "session.disable_cpu_ep_fallback"
_RECORD = "session.record_ep_graph_assignment_info"
_ON_HOST = "CPUExecutionProvider"


class QnnHtp:
    """Qualcomm's HTP, with default options.

    Raises:
        MissingPackageError: If onnxruntime-qnn is not installed.
    """

    has_threads = False

    def __init__(self) -> None:
        check_package("qnn-htp", "onnxruntime_qnn", "onnxruntime-qnn")

    @property
    def name(self) -> str:
        """The name and version."""
        return f"qnn-htp {version('onnxruntime-qnn')}"

    def open(self, path: Path, *, threads: int = 1) -> QnnHtpFile:
        """Open a file on the HTP; operators that the HTP can't run fall back to the host.

        Args:
            path: The file.
            threads: The HTP has its own threads, so this number changes nothing.

        Raises:
            InvalidArgumentError: If the file can't be opened, even with fallback to the host.
        """
        try:
            return QnnHtpFile(self.name, _session(path, fallback=False))
        except Exception as refusal:  # noqa: BLE001 - quoted below
            try:
                return QnnHtpFile(self.name, _session(path, fallback=True))
            except Exception:  # noqa: BLE001 - the first error names the operator that the HTP lacks
                raise unfit_file(self.name, "open", refusal) from refusal


class QnnHtpFile:
    """A file that the HTP has opened.

    Args:
        runtime: The name of the runtime.
        session: The session with the file.

    Attributes:
        fell_back: The types of the operators that run on the host's processor.
    """

    def __init__(self, runtime: str, session: onnxruntime.InferenceSession) -> None:
        self._runtime = runtime
        self._session = session
        self._names = [entry.name for entry in session.get_inputs()]
        parts = session.get_provider_graph_assignment_info()
        on_host = [node.op_type for part in parts if part.ep_name == _ON_HOST for node in part.get_nodes()]
        self.fell_back: tuple[str, ...] = tuple(sorted(set(on_host)))

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for one batch.

        Raises:
            InvalidArgumentError: If the HTP fails while it runs the file.
        """
        feeds = {name: np.ascontiguousarray(array) for name, array in zip(self._names, batch, strict=True)}
        try:
            return cast("list[np.ndarray]", self._session.run(None, feeds))
        except Exception as error:
            raise unfit_file(self._runtime, "run", error) from error


def _session(path: Path, *, fallback: bool) -> onnxruntime.InferenceSession:
    device, library = _device()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # onnxruntime raises errors as exceptions, too
    options.add_session_config_entry(_RECORD, "1")
    if not fallback:
        options.add_session_config_entry(_NO_FALLBACK, "1")
    options.add_provider_for_devices([device], {"backend_path": library})
    return onnxruntime.InferenceSession(str(path), options)


@cache
def _device() -> tuple[Any, str]:
    """Return the device, and the library of the HTP; a process registers the provider once."""
    package = import_module("onnxruntime_qnn")
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == _PROVIDER]
    if not devices:  # the application may have registered the provider itself
        onnxruntime.register_execution_provider_library(_PROVIDER, package.get_library_path())
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == _PROVIDER]
    return devices[0], package.get_qnn_htp_path()
