"""The hooks that are active in this thread, and the model that AIMET scales in this thread.

Both are `ContextVar`s: two threads that equalize at once do not see each other's settings, models or reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from threading import RLock
from typing import Any

import torch

from eq_aimet.aimet.equalization.cls_sets import unsafe_layers
from eq_aimet.aimet.equalization.high_bias_fold import HighBiasFoldMode
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.equalization.scale_tracing.scale_trace import Trace
from eq_aimet.aimet.equalization.scale_tracing.scale_tracer import trace_scales
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.layers import is_layer

__all__ = [
    "ACTIVE_RUN",
    "AIMET_LOCK",
    "Run",
    "Settings",
    "current_settings",
    "innermost",
    "installed",
    "running",
    "with_settings",
]

# AIMET itself is not thread-safe, so one thread at a time traces, folds and scales.
AIMET_LOCK = RLock()


@dataclass(frozen=True, eq=False)
class Settings:
    """The settings of one installation of the hooks.

    Attributes:
        high_bias_fold: The mode of the high-bias fold.
        recorder: The object that records the changes, or `None`.
    """

    high_bias_fold: HighBiasFoldMode
    recorder: Recorder | None = None


@dataclass
class Run:
    """One equalization of one model.

    Attributes:
        model: The model.
        trace: A forward pass of the model before anything was changed; `None` if no layer carries blocks.
        unsafe: The layers that must not be scaled, each with the reason.
        folded: The batch norms that were folded since the forward pass.
        check: The function that is called after the scaling and before the high-bias fold.
    """

    model: torch.nn.Module
    trace: Trace | None = None
    unsafe: dict[torch.nn.Module, str] = field(default_factory=dict)
    folded: set[torch.nn.Module] = field(default_factory=set)
    check: Callable[[], None] | None = None

    def look_at(self, inputs: Any) -> None:
        """Note, in one forward pass, how scales pass through a model with blocks; works in place.

        Args:
            inputs: The inputs of the model, on the model's device.
        """
        if self.trace is None and any(layer_blocks(module) is not None for module in self.model.modules()):
            self.trace = trace_scales(self.model, inputs)
            self.unsafe = unsafe_layers(self.trace)

    @property
    def layers(self) -> tuple[Any, ...]:
        """The convolutions and linear layers, in the order of their runs if this order is known."""
        modules = self.model.modules() if self.trace is None else self.trace.runs
        return tuple(module for module in modules if is_layer(module))


ACTIVE_RUN: ContextVar[Run | None] = ContextVar("active_run", default=None)
# The settings of the `with` blocks around the running code, the innermost last.
innermost: ContextVar[tuple[Settings, ...]] = ContextVar("innermost", default=())
# The settings of `install()`, which hold for all threads; changed under the lock.
installed: list[Settings] = []


def current_settings() -> Settings | None:
    """Return the settings that are active here, or `None` if AIMET must work without this package."""
    local = innermost.get()
    if local:
        return local[-1]
    return installed[-1] if installed else None


def with_settings(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that calls the replacement with the settings, or AIMET's original without settings.

    One thread at a time runs the replacement.
    """

    def decorate(replacement: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(replacement)
        def choose(*arguments: Any, **named: Any) -> Any:
            settings = current_settings()
            if settings is None:
                return original(*arguments, **named)
            with AIMET_LOCK:
                return replacement(settings, *arguments, **named)

        return choose

    return decorate


@contextmanager
def running(model: torch.nn.Module) -> Iterator[Run]:
    """Continue the run of a model, or begin a run that ends with this context."""
    run = ACTIVE_RUN.get()
    if run is not None and run.model is model:
        yield run
        return
    run = Run(model)
    token = ACTIVE_RUN.set(run)
    try:
        yield run
    finally:
        ACTIVE_RUN.reset(token)
