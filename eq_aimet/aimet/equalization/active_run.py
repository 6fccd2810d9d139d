"""Which hooks hold in this thread, and which model AIMET scales in it at the moment.

Both are `ContextVar`s: two threads that equalize at once do not see each other's settings, models or reports.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import torch

from eq_aimet.aimet.equalization.high_bias_fold import HighBiasFoldMode
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.equalization.unsafe_layers import output_modules, unsafe_layers
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import is_layer

__all__ = ["AIMET_LOCK", "ACTIVE_RUN", "Run", "Settings", "current_settings", "innermost", "installed"]

# AIMET itself is not thread-safe, so one thread at a time traces, folds and scales.
AIMET_LOCK = RLock()


@dataclass(frozen=True, eq=False)
class Settings:
    """What one installation of the hooks asks for.

    Attributes:
        high_bias_fold: Where the high-bias fold absorbs.
        recorder: What writes the changes down, if anything does.
    """

    high_bias_fold: HighBiasFoldMode
    recorder: Recorder | None = None


@dataclass
class Run:
    """One call of AIMET's `scale_model`.

    Attributes:
        model: The model that is scaled.
        search: AIMET's search of its graph.
        layers: Its convolutions and linear layers in the order in which they ran.
        has_blocks: Whether one of them carries rotation blocks. What follows is only known if so.
        outputs: The modules whose output the model returns.
        unsafe: The layers that must not be scaled, each with the reason.
    """

    model: torch.nn.Module
    search: Any = None
    layers: tuple[Any, ...] = ()
    has_blocks: bool = False
    outputs: set[torch.nn.Module] = field(default_factory=set)
    unsafe: dict[torch.nn.Module, str] = field(default_factory=dict)

    def look_at(self, search: Any, dummy_input: Any) -> None:
        """Note what the scaling asks for, once AIMET has built its graph; works in place."""
        modules = [operation.get_module() for operation in search._connected_graph.ordered_ops]
        self.search = search
        self.layers = tuple(
            dict.fromkeys(module for module in modules if module is not None and is_layer(module))
        )
        self.has_blocks = any(layer_blocks(layer) is not None for layer in self.layers)
        if self.has_blocks:
            self.outputs = output_modules(self.model, dummy_input)
            self.unsafe = unsafe_layers(self.model, search)


ACTIVE_RUN: ContextVar[Run | None] = ContextVar("active_run", default=None)
# The settings of the `with` blocks around the running code, the innermost last.
innermost: ContextVar[tuple[Settings, ...]] = ContextVar("innermost", default=())
# The settings of `install()`, which hold for all threads; changed under the lock.
installed: list[Settings] = []


def current_settings() -> Settings | None:
    """Return the settings that hold here, or `None` where AIMET is to work as it does alone."""
    local = innermost.get()
    if local:
        return local[-1]
    return installed[-1] if installed else None
