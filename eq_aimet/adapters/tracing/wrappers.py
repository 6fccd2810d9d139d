"""Wrappers around a model that change how the model runs, but not its outputs."""

from __future__ import annotations

import sys

import torch

from eq_aimet.adapters.tracing.hooks import has_hooks
from eq_aimet.adapters.tracing.refusals import hooks_on_wrapper

__all__ = ["unwrapped"]


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """Return the module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`.

    Raises:
        ExportError: If a wrapper has hooks, because the module inside would not run these hooks.

    Example:
        >>> unwrapped(torch.nn.DataParallel(torch.nn.ReLU()))
        ReLU()
    """
    while True:
        inner = _inside(module)
        if inner is None:
            return module
        if has_hooks(module):
            raise hooks_on_wrapper(module)
        module = inner


def _inside(module: torch.nn.Module) -> torch.nn.Module | None:
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # importing it takes seconds
    if compiler is not None and isinstance(module, compiler.OptimizedModule):
        inner: torch.nn.Module = module._orig_mod
        return inner
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return module.module
    return None
