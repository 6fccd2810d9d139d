"""Tells AIMET about our plain modules as soon as both packages are imported, in either order.

AIMET refuses module classes that nobody has registered. An exported model holds such modules, and it may
reach AIMET without any call into `eq_aimet.aimet`: right after `export_model`, or out of a file that
`torch.load` reads. Reading the file imports this package, so its import is the one place that always runs.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register_with_aimet"]

_AIMET = "aimet_torch"
_QUANTIZED_MODULES = "eq_aimet.aimet.simulation.quantized_modules"


def register_with_aimet() -> None:
    """Register the quantized twins of our modules now if AIMET is imported, else right after it is.

    AIMET itself is never imported here. Calling this again changes nothing.
    """
    if _AIMET in sys.modules:
        _register()
    elif not any(isinstance(finder, _AimetFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AimetFinder())


class _AimetFinder(MetaPathFinder):
    """Finds AIMET as the other finders do, and has the registration run once its import is complete."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _AIMET:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                self._run_after(spec)
                return spec
        return None

    def _run_after(self, spec: ModuleSpec) -> None:
        loader = spec.loader
        execute = getattr(loader, "exec_module", None)
        if loader is None or execute is None:
            return

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        loader.exec_module = exec_module  # type: ignore[method-assign]


def _register() -> None:
    try:
        import_module(_QUANTIZED_MODULES)
    except ImportError as error:
        # AIMET's import must not fail because of us: most of its users' models don't need these modules.
        warnings.warn(
            f"eq_aimet could not register its modules with AIMET ({error}); QuantizationSimModel will "
            "refuse models out of `export_model` that add, mask or pool over groups.",
            ImportWarning,
            stacklevel=2,
        )
