"""From one equivariant module to its plain twin, by the tables of the module's library."""

from __future__ import annotations

import torch

from eq_aimet.adapters.libraries import library_of
from eq_aimet.adapters.library import Library
from eq_aimet.errors import ExportError

__all__ = ["to_plain_module"]


def to_plain_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return a plain module with the eval-mode output of `module`, or `None` to trace into `module`.

    The library's table converts the library's own classes. A user's own equivariant module that adds to such
    a class, without a new `forward`, is converted as that class. Otherwise it is traced.

    Raises:
        ExportError: If a class of the library has no exact plain equivalent here.
    """
    library = library_of(module)
    if library is None:
        return None
    kind = type(module)
    if _is_traced_through(library, kind):
        return None
    owner = _defining_class(library, kind, "forward")
    is_users = not library.owns(kind) and kind not in library.converters
    if is_users and (not library.owns(owner) or _is_traced_through(library, owner)):
        return None
    converter = library.converters.get(kind) or library.converters.get(owner)
    if converter is None:
        raise ExportError(
            f"`{kind.__name__}` of {library.package} has no exact plain equivalent in eq_aimet. Replace the "
            "module by one that has a plain equivalent, or register a plugin whose `eq_aimet_export_module` "
            "returns a plain module for it."
        )
    return converter(module).eval()


def _is_traced_through(library: Library, kind: type) -> bool:
    return kind in library.traced_through or kind in library.composites


def _defining_class(library: Library, cls: type, method: str) -> type:
    return next((base for base in cls.__mro__ if method in vars(base)), library.module_class)
