"""The register of the libraries of equivariant networks: which library an object belongs to.

This module imports a library only when a function receives an object of that library.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from eq_aimet.errors import InvalidArgumentError

if TYPE_CHECKING:
    from eq_aimet.adapters.library import Library

__all__ = [
    "ADAPTERS",
    "is_field_type",
    "is_typed_tensor",
    "library_of",
    "load_adapter",
    "package_of",
]

# For each library the package that adapts it; importing this package mends the library.
ADAPTERS = {"e2cnn": "eq_aimet.adapters.e2cnn", "escnn": "eq_aimet.adapters.escnn"}


def package_of(value: object) -> str | None:
    """Return the name of the library that a class of `value` comes from, or `None`; nothing is imported."""
    packages = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((package for package in packages if package in ADAPTERS), None)


def library_of(value: object) -> Library | None:
    """Return the library that a class of `value` comes from, or `None`.

    Example:
        >>> from e2cnn import gspaces
        >>> library_of(gspaces.Rot2dOnR2(4)).package
        'e2cnn'
        >>> library_of(3) is None
        True
    """
    package = package_of(value)
    return None if package is None else _library(package)


def load_adapter(library: object) -> ModuleType:
    """Return the adapter of the library named `library`; the adapter holds the parts for building networks.

    Raises:
        InvalidArgumentError: If eq_aimet has no adapter for a library of this name.
        MissingPackageError: If the library is not installed.

    Example:
        >>> load_adapter("e2cnn").planar_space(4).name
        '4-Rotations'
    """
    if not isinstance(library, str) or library not in ADAPTERS:
        raise InvalidArgumentError(
            "library",
            received=repr(library),
            expected=" or ".join(f'"{name}"' for name in ADAPTERS),
            remedy="Name the library that the network is to be built with.",
        )
    return import_module(ADAPTERS[library])


def is_typed_tensor(value: object) -> bool:
    """Return whether `value` is a typed tensor of a library, such as e2cnn's `GeometricTensor`."""
    library = library_of(value)
    return library is not None and isinstance(value, library.tensor_class)


def is_field_type(value: object) -> bool:
    """Return whether `value` is a field type of a library."""
    library = library_of(value)
    return library is not None and isinstance(value, library.type_class)


def _library(package: str) -> Library:
    library: Library = import_module(f"{ADAPTERS[package]}.library").LIBRARY
    return library
