"""The built-in support of e2cnn as a plugin; it imports e2cnn only when a model uses it."""

from __future__ import annotations

import torch

from eq_aimet.hookspecs import hookimpl

__all__ = ["eq_aimet_export_module", "is_equivariant_module"]


def is_equivariant_module(module: torch.nn.Module) -> bool:
    """Return whether a class of `module` comes from e2cnn or escnn, without importing either."""
    return any(cls.__module__.partition(".")[0] in ("e2cnn", "escnn") for cls in type(module).__mro__)


@hookimpl(trylast=True)
def eq_aimet_export_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the plain twin of an e2cnn module, or `None` for what is no e2cnn module or is traced into."""
    if not is_equivariant_module(module):
        return None
    from eq_aimet.adapters.e2cnn.modules import to_plain_module

    return to_plain_module(module)
