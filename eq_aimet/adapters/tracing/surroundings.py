"""Temporary changes during the tracing of a model, which are undone afterwards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from eq_aimet.adapters.tracing.refusals import random_numbers
from eq_aimet.adapters.tracing.tracer import Tracer

__all__ = ["ready_to_trace"]

_SIZED = ("zeros", "ones", "empty", "rand", "randn")
_RANDOM = frozenset(
    [
        "rand",
        "randn",
        "randint",
        "randperm",
        "normal",
        "bernoulli",
        "multinomial",
        "poisson",
        "rand_like",
        "randn_like",
        "randint_like",
        "uniform_",
        "normal_",
        "bernoulli_",
        "random_",
        "exponential_",
        "cauchy_",
        "geometric_",
        "log_normal_",
    ]
)


@contextmanager
def ready_to_trace(model: torch.nn.Module, tracer: Tracer) -> Iterator[None]:
    """Show `forward` the eval mode, record torch's functions, and leave the model as it was."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_unchanged(model))
        stack.enter_context(_eval_flags(model))
        stack.enter_context(_without_compiler())
        stack.enter_context(_packed_sizes())
        stack.enter_context(_FunctionRecorder(tracer))
        yield


class _FunctionRecorder(TorchFunctionMode):
    """Records torch functions with symbolic arguments, also functions without tensor arguments."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.tracer.is_paused:
            name = getattr(func, "__name__", "")
            if name in _RANDOM:
                raise random_numbers(name)
            leaves = _pytree.tree_leaves((args, kwargs))
            if any(isinstance(leaf, fx.Proxy) for leaf in leaves):
                return fx.Proxy.__torch_function__(func, types, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def _eval_flags(model: torch.nn.Module) -> Iterator[None]:
    """Set only the mode flags to eval mode, because a library's `train()` would rebuild the filters."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _unchanged(model: torch.nn.Module) -> Iterator[None]:
    """Undo all changes of `forward` and torch.fx to module attributes, also in dictionaries and lists."""
    before = [(vars(module), _shallow(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for attributes, stored in before:
            for name in set(attributes) - set(stored):
                del attributes[name]
            for name, (value, parts) in stored.items():
                attributes[name] = value
                if isinstance(parts, dict):
                    value.clear()
                    value.update(parts)
                elif isinstance(parts, list):
                    value[:] = parts


def _shallow(attributes: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return each attribute, and a copy of its parts if it is a dictionary or a list."""
    return {
        name: (value, value.copy() if isinstance(value, (dict, list)) else None)
        for name, value in attributes.items()
    }


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Run functions that `torch.compile` decorates without compiling them."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch._dynamo.config as config

    with config.patch(error_on_nested_fx_trace=False), torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _packed_sizes() -> Iterator[None]:
    """Let `torch.zeros(batch, 3)` accept a symbol, like `torch.zeros((batch, 3))`."""
    originals = {name: getattr(torch, name) for name in _SIZED}

    def packing(original: Callable[..., Any]) -> Callable[..., Any]:
        def allocate(*sizes: Any, **options: Any) -> Any:
            if any(isinstance(size, fx.Proxy) for size in sizes):
                return original(sizes, **options)
            return original(*sizes, **options)

        return allocate

    for name, original in originals.items():
        setattr(torch, name, packing(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(torch, name, original)
