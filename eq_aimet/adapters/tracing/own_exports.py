"""Users' own equivariant modules with an `export()` of their own.

The tracer first traces such a module. It uses `export()` only if the `forward` can't be traced, and if the
exported module computes the same outputs as the module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.libraries import is_typed_tensor, library_of
from eq_aimet.adapters.tracing.examples import Examples
from eq_aimet.adapters.tracing.inputs import with_types_of, without_types
from eq_aimet.errors import ExportError
from eq_aimet.symmetry.calling import tensors_in
from eq_aimet.symmetry.copying import copy_module

__all__ = ["check_own_export", "own_export"]

_TOLERANCE = 1e-5  # relative to the largest value


def own_export(module: Any, path: str, error: Exception) -> torch.nn.Module | None:
    """Return the result of the module's own `export()`, or `None` if its class defines no `export()`.

    Args:
        module: The module, which could not be traced.
        path: The module's path in the model.
        error: The reason why the module could not be traced.

    Raises:
        ExportError: If `export()` fails, or if it returns an object that can't be called.
    """
    library = library_of(module)
    if library is None:
        return None
    owner = next((base for base in type(module).__mro__ if "export" in vars(base)), library.module_class)
    if library.owns(owner):
        return None
    try:
        exported = _in_eval_mode(module).export()
    except Exception as failure:
        raise _unusable(module, path, f"fails ({type(failure).__name__}: {failure})", error) from failure
    containers = (torch.nn.ModuleDict, torch.nn.ModuleList)
    if not isinstance(exported, torch.nn.Module) or isinstance(exported, containers):
        raise _unusable(module, path, f"returned a {type(exported).__name__}", error) from error
    return exported.eval()


def check_own_export(
    module: torch.nn.Module, path: str, exported: torch.nn.Module, args: tuple[Any, ...], known: Examples
) -> None:
    """Check that the exported module and `module` return the same output on the dummy input.

    Raises:
        ExportError: If the exported module fails on the dummy input, or if its output differs.
    """
    tensors = [known.first[symbol.node] for symbol in without_types(args) if isinstance(symbol, fx.Proxy)]
    inputs = [
        with_types_of(tensor, arg) if is_typed_tensor(arg) else tensor
        for tensor, arg in zip(tensors, args, strict=True)
    ]
    with torch.no_grad():
        expected = tensors_in(without_types(_in_eval_mode(module)(*inputs)))
        actual = tensors_in(exported(*tensors))
    for got, wanted in zip(actual, expected, strict=True):
        scale = float(wanted.abs().max()) if wanted.numel() else 0.0
        if got.shape != wanted.shape or float((got - wanted).abs().max()) > _TOLERANCE * scale:
            raise ExportError(
                f"`model.{path}`: `{type(module).__name__}.export()` returned a module that computes "
                "something else than the module itself. Correct it, or remove it if `forward` can be traced."
            )


def _in_eval_mode(module: Any) -> Any:
    """Return a copy in eval mode; the mode change makes the library expand the filters again."""
    return copy_module(module).train().eval()


def _unusable(module: torch.nn.Module, path: str, reason: str, error: Exception) -> ExportError:
    return ExportError(
        f"`model.{path}`: `{type(module).__name__}` can't be traced ({error}), "
        f"and its own `export()` {reason}. Write "
        "`forward` so that it can be traced, or return a torch.nn.Module that takes and returns plain "
        "tensors."
    )
