"""The built-in support of the libraries as a plugin; a library is imported only when a model uses it."""

from __future__ import annotations

import torch

from eq_aimet.adapters.libraries import package_of
from eq_aimet.hookspecs import hookimpl

__all__ = ["eq_aimet_export_module"]


@hookimpl(trylast=True)
def eq_aimet_export_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the plain twin of an equivariant module, or `None` for other modules and traced modules."""
    if package_of(module) is None:
        return None
    from eq_aimet.adapters.conversion import to_plain_module

    return to_plain_module(module)
