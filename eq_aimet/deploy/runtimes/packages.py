"""Whether the package of a runtime is installed."""

from __future__ import annotations

from importlib.util import find_spec

from eq_aimet.errors import MissingPackageError

__all__ = ["check_package"]


def check_package(runtime: str, module: str, package: str) -> None:
    """Check that a package can be imported.

    Args:
        runtime: The name of the runtime that needs the package.
        module: The name to import.
        package: The name to install.

    Raises:
        MissingPackageError: If the package is not installed.
    """
    if find_spec(module) is None:
        raise MissingPackageError(
            f'`runtimes`: "{runtime}" needs the package {package}, which is not installed. '
            f"Install it: pip install {package}"
        )
