"""Float64 outputs for the modules of a library that return float32 for every input."""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

import torch

from eq_aimet.adapters.mending.rebinding import Namespace, rebind

__all__ = ["follow_double", "single_precision_classes"]


def single_precision_classes(modules: ModuleType, *others: type) -> list[type]:
    """Return the classes whose `forward` allocates its output without the dtype of its input.

    The equivariance of a network with such a module can't be measured in float64. In float64 an exactly
    equivariant network shows an error of 1e-15, and a nearly equivariant network shows a larger error.

    Args:
        modules: The Python module whose classes are looked at, for example `e2cnn.nn`.
        *others: More classes to look at.

    Example:
        >>> from eq_aimet.adapters.e2cnn import enn
        >>> single_precision_classes(enn)  # importing the adapter has mended the classes
        []
    """
    candidates = {value for value in vars(modules).values() if inspect.isclass(value)} | {*others}
    return sorted(
        (candidate for candidate in candidates if _allocates_single(vars(candidate).get("forward"))),
        key=lambda candidate: candidate.__name__,
    )


def _allocates_single(forward: Any) -> bool:
    code = getattr(forward, "__code__", None)
    if code is None or hasattr(forward, "__wrapped__"):
        return False
    allocates = "torch" in code.co_names and not {"empty", "zeros"}.isdisjoint(code.co_names)
    return allocates and not _reads_dtype(code)


def _reads_dtype(code: Any) -> bool:
    # `dtype=x.dtype` reads the attribute, `dtype=torch.float` only passes the keyword
    return "dtype" in code.co_names


def follow_double(modules: ModuleType, *others: type) -> None:
    """Let the classes return float64 for float64 inputs, in place; other inputs run the library's own code.

    Args:
        modules: The Python module whose classes are mended, for example `e2cnn.nn`.
        *others: More classes to mend.
    """
    for owner in single_precision_classes(modules, *others):
        owner.forward = _in_precision_of_input(owner.forward)  # type: ignore[attr-defined]


def _in_precision_of_input(forward: Any) -> Any:
    """Return a `forward` that runs the same code, and allocates in float64 if its input is float64."""
    original = forward.__globals__["torch"]
    doubled = Namespace(original, empty=_double(torch.empty), zeros=_double(torch.zeros))
    forward_double = rebind(forward, torch=doubled)

    @functools.wraps(forward)
    def follow(self: Any, input: Any, *arguments: Any, **options: Any) -> Any:
        several = input.values() if isinstance(input, dict) else input
        first: Any = next(iter(several)) if isinstance(input, (dict, list, tuple)) else input
        tensor: Any = getattr(first, "tensor", first)
        chosen = forward_double if tensor.dtype is torch.float64 else forward
        return chosen(self, input, *arguments, **options)

    return follow


def _double(allocate: Any) -> Any:
    def allocate_double(*size: Any, dtype: Any = None, **options: Any) -> torch.Tensor:
        return allocate(*size, dtype=torch.float64, **options)

    return allocate_double
