"""The versions of the libraries that a run uses."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["library_versions"]

_PACKAGES = ("eq_aimet", "torch", "aimet-torch", "e2cnn", "onnx", "onnxruntime", "lightning", "numpy")


def library_versions() -> dict[str, str]:
    """Return the versions of Python, eq_aimet and the libraries that a run's figures depend on.

    Example:
        >>> list(library_versions())[:3]
        ['Python', 'eq_aimet', 'torch']
    """
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
