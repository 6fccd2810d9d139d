"""Mends: repairs of a library that fails on current torch or numpy, each only where it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, NamedTuple

import torch

from eq_aimet.adapters.mending.rebinding import Namespace

__all__ = ["Mend", "apply_mends", "lay_out_einsums", "views_einsums"]

logger = logging.getLogger(__name__)


class Mend(NamedTuple):
    """One fault of a library: its name, a probe that says whether it occurs here, and the cure."""

    name: str
    is_needed: Callable[[], bool]
    cure: Callable[[], None]


def apply_mends(library: str, mends: Iterable[Mend]) -> tuple[str, ...]:
    """Mend the library in place where a probe finds a fault, and return the names of the applied mends.

    Args:
        library: The name of the library, for the log.
        mends: The mends to try.

    Example:
        >>> apply_mends("e2cnn", [Mend("a fault that does not occur", lambda: False, lambda: None)])
        ()
    """
    done = []
    for mend in mends:
        if mend.is_needed():
            mend.cure()
            done.append(mend.name)
            logger.debug("mended %s: %s", library, mend.name)
    return tuple(done)


def views_einsums(gnorm: ModuleType) -> bool:
    """Return whether `GNormBatchNorm` takes a view of an einsum, which torch no longer lays out in order."""
    code = gnorm.GNormBatchNorm.forward.__code__
    moved = gnorm.torch.einsum("ds,bcsxy->bcdxy", (torch.eye(2), torch.zeros(2, 3, 2, 2, 2)))
    return {"einsum", "view"} <= set(code.co_names) and not moved.is_contiguous()


def lay_out_einsums(gnorm: ModuleType) -> None:
    """Let the module of `GNormBatchNorm` lay out the results of its einsums in memory, in place."""
    gnorm.torch = Namespace(gnorm.torch, einsum=_contiguous_einsum)  # type: ignore[attr-defined]


def _contiguous_einsum(*arguments: Any) -> torch.Tensor:
    """Return the einsum, laid out in memory in the order of its dimensions."""
    return torch.einsum(*arguments).contiguous()
