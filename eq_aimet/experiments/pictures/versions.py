"""The versions of the libraries that a run uses."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["library_versions"]

_PACKAGES = ("eq_aimet", "torch", "aimet-torch", "e2cnn", "onnx", "onnxruntime", "lightning", "numpy")


def library_versions() -> dict[str, str]:
    """Return the versions of Python, eq_aimet and the libraries that a run's figures depend on.

    Example:
        >>> library_versions()["eq_aimet"]
        '0.1.0'
    """
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
