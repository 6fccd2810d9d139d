"""Running a model's code in one floating-point type, whatever types the code itself asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["ComputeIn"]

_CASTS = (torch.Tensor.float, torch.Tensor.double, torch.Tensor.half, torch.Tensor.bfloat16)
_FLOATING_TYPES = ("FloatTensor", "DoubleTensor", "HalfTensor", "BFloat16Tensor")


class ComputeIn(TorchFunctionMode):
    """Gives each floating-point tensor that torch makes inside the `with` block the type `dtype`.

    Without this mode, a `forward` that calls `x.float()` or `torch.zeros(3)` fails on float64 weights,
    because torch does not multiply matrices of different types. Values are not rounded to the type that the
    code asks for.

    Example:
        >>> with ComputeIn(torch.float64):
        ...     torch.zeros(2).dtype, torch.ones(2, dtype=torch.float64).float().dtype, torch.arange(2).dtype
        (torch.float64, torch.float64, torch.int64)
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _CASTS or (
            func is torch.Tensor.type and str(args[-1]).rstrip("'>").endswith(_FLOATING_TYPES)
        ):
            return args[0].to(self.dtype)
        result = func(*map(self._in_dtype, args), **{k: self._in_dtype(v) for k, v in (kwargs or {}).items()})
        is_new = isinstance(result, torch.Tensor) and all(result is not arg for arg in args)
        return result.to(self.dtype) if is_new and result.is_floating_point() else result

    def _in_dtype(self, value: Any) -> Any:
        """Return `dtype` instead of a floating-point type, and any other value unchanged."""
        return self.dtype if isinstance(value, torch.dtype) and value.is_floating_point else value
