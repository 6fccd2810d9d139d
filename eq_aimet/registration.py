"""Connects eq_aimet with AIMET and with the libraries as soon as both are imported, in either order.

AIMET refuses module classes that are not registered. An exported model holds such modules, and it may
reach AIMET without any call into `eq_aimet.aimet`: right after `export_model`, or from a file that
`torch.load` reads. Reading the file imports this package, so its import is the one place that always runs.

eq_aimet mends the libraries, because they fail on current torch and numpy. A script that imports a library
and eq_aimet gets the mended library without a call.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

import wrapt

from eq_aimet.adapters.libraries import ADAPTERS
from eq_aimet.adapters.mending.lie_learn_stand_in import offer_stand_in

__all__ = ["connect"]

_QUANTIZED_MODULES = "eq_aimet.aimet.simulation.quantized_modules"


def connect() -> None:
    """Import our adapter of AIMET and of each library, now or right after that package is imported.

    This function imports neither AIMET nor a library. Calling it again changes nothing.
    """
    offer_stand_in()
    _connect_once("aimet_torch", _QUANTIZED_MODULES)
    for package, adapter in ADAPTERS.items():
        _connect_once(package, adapter)


@cache
def _connect_once(package: str, ours: str) -> None:
    """Import the module `ours` right after `package`."""

    @wrapt.when_imported(package)
    def import_ours(_: ModuleType) -> None:
        try:
            import_module(ours)
        except ImportError as error:
            # The import of the other package must not fail because of eq_aimet: its users may not need
            # eq_aimet.
            warnings.warn(
                f"eq_aimet could not connect itself with {package} ({error}); models out of `export_model`, "
                f"or the modules of {package}, may fail.",
                ImportWarning,
                stacklevel=2,
            )
