"""Hooks, parametrizations and replaced `forward`s of a module that is recorded as a whole.

A hook runs on symbolic values, so the graph contains all operations of the hook. A parametrization is
computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

__all__ = [
    "call_with_hooks",
    "has_hooks",
    "has_own_forward",
    "refresh_reparametrization",
    "without_reparametrization",
]

_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def has_hooks(module: torch.nn.Module) -> bool:
    """Return whether a call of the module runs a hook other than the hooks of weight and spectral norms."""
    return bool(
        module._forward_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or len(module._forward_pre_hooks) > len(_reparametrizations(module))
    )


def has_own_forward(module: torch.nn.Module) -> bool:
    """Return whether a `forward` set on the object replaces the `forward` of the module's class."""
    return "forward" in vars(module)


def call_with_hooks(
    module: torch.nn.Module, record: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return the result of `record` on the arguments, and run the module's hooks before and after it."""
    if not has_hooks(module):
        return record(*args, **kwargs)
    vars(module)["forward"] = record
    try:
        return module._call_impl(*args, **kwargs)
    finally:
        del vars(module)["forward"]


def refresh_reparametrization(module: torch.nn.Module) -> None:
    """Compute, in place, the weight that the pre-hook of `weight_norm` or `spectral_norm` would compute."""
    with torch.no_grad():
        for hook in _reparametrizations(module):
            hook(module, ())


def without_reparametrization(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy without hooks, in which normed and parametrized weights are plain parameters."""
    shell = module.__class__.__new__(module.__class__)
    vars(shell).update(vars(module))
    # Hooks may hold the whole model, so they are not copied. The hooks of the norms hold only names.
    for name, value in vars(module).items():
        if name.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and isinstance(
            value, dict
        ):
            norms = {key: hook for key, hook in value.items() if _is_norm(hook)}
            vars(shell)[name] = type(value)(norms)
    refresh_reparametrization(shell)
    twin = copy.deepcopy(shell)
    for hook in _reparametrizations(twin):
        remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
        remove(twin, hook.name)
    if parametrize.is_parametrized(twin):
        with torch.enable_grad():  # without gradients, torch makes the weight a buffer
            for name in list(twin.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(twin, name, leave_parametrized=True)
    return twin


def _reparametrizations(module: torch.nn.Module) -> list[Any]:
    return [
        hook for hook in module._forward_pre_hooks.values() if isinstance(hook, (WeightNorm, SpectralNorm))
    ]


def _is_norm(hook: Any) -> bool:
    return type(hook).__module__ in (WeightNorm.__module__, SpectralNorm.__module__)
