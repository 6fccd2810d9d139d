"""Lets `import escnn` succeed without a working `lie_learn`.

escnn imports `wigner_D_matrix` from lie_learn, but calls it only for the groups SO(3) and O(3). lie_learn
0.0.2 is built for numpy 1. With numpy 2 the import of lie_learn fails, so the import of escnn fails too.
After `import eq_aimet`, escnn finds a stand-in if lie_learn is not installed or cannot be imported. A
working lie_learn is not replaced.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import NoReturn

__all__ = ["offer_stand_in"]

_PACKAGES = ("lie_learn", "lie_learn.representations", "lie_learn.representations.SO3")
_MODULE = "lie_learn.representations.SO3.wigner_d"
_COMPILED = "lie_learn.representations.SO3.irrep_bases"  # `wigner_d` needs it; numpy 2 refuses it


def offer_stand_in() -> None:
    """Offer the stand-in to every later import; nothing is imported, and a second call changes nothing."""
    if not any(isinstance(finder, _StandIn) for finder in sys.meta_path):
        sys.meta_path.insert(0, _StandIn())


class _StandIn(MetaPathFinder, Loader):
    """Finds the four modules on the path to `wigner_D_matrix` if lie_learn's own modules do not work."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _PACKAGES and not _is_installed():
            return ModuleSpec(fullname, self, is_package=True)
        if fullname == _MODULE and not (_is_installed() and _is_importable()):
            return ModuleSpec(fullname, self)
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill the stand-in."""
        if module.__name__ == _MODULE:
            module.wigner_D_matrix = _refuse  # type: ignore[attr-defined]


def _is_installed() -> bool:
    return PathFinder.find_spec("lie_learn") is not None


def _is_importable() -> bool:
    # numpy 2 prints a page of advice before it refuses a module that was built for numpy 1.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            import_module(_COMPILED)
        except ImportError:
            return False
    return True


def _refuse(*arguments: object, **options: object) -> NoReturn:
    raise ImportError(
        "escnn calls `lie_learn` for the groups SO(3) and O(3), and no lie_learn works in this environment. "
        "The planar groups, which eq_aimet supports, do not need it. For the other groups type "
        "`pip install 'numpy<2' lie_learn`."
    )
