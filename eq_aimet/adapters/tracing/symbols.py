"""Symbolic values, on which `forward` runs while it is traced.

A symbolic tensor records each operation. It answers questions about its shape, dtype and device with plain
Python values, as a real tensor does, so Python code takes the same branch as without tracing. Only numbers
that depend on the batch size are symbolic, because the plain model takes every batch size.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from torch import fx

from eq_aimet.adapters.libraries import is_typed_tensor
from eq_aimet.adapters.tracing.refusals import fixed_batch_size

__all__ = ["NumberSymbol", "Shape", "TensorSymbol"]

# Properties of a tensor that are tensors themselves.
_TENSOR_PROPERTIES = ("T", "mT", "H", "mH", "real", "imag")


class TensorSymbol(fx.Proxy):
    """A symbolic tensor that knows its result on the dummy input."""

    tracer: Any  # the `Tracer` that made the symbol

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return torch.Tensor  # for `isinstance(x, torch.Tensor)`

    def __getattr__(self, name: str) -> Any:
        if name == "shape":
            return self.tracer.shape_of(self)
        if name == "data":
            return self
        if name in _TENSOR_PROPERTIES:
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        value = getattr(self._example, name)
        if callable(value):
            return super().__getattr__(name)
        return value

    @property
    def _example(self) -> Any:
        return self.tracer.examples[self.node]

    def _change(self, operation: Callable[..., Any], other: Any) -> Any:
        """Record an in-place change; torch.fx itself would record it as a new value."""
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    def __mul__(self, other: Any) -> Any:
        if is_typed_tensor(other):
            return NotImplemented  # a factor on the left of a field: the field multiplies itself
        return self.tracer.create_proxy("call_function", operator.mul, (self, other), {})

    def __iadd__(self, other: Any) -> Any:
        return self._change(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._change(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._change(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._change(operator.itruediv, other)

    def __len__(self) -> int:
        if not self._example.dim():
            raise TypeError("len() of a 0-d tensor")
        length = self.tracer.shape_of(self)[0]
        if isinstance(length, fx.Proxy):
            raise fixed_batch_size("takes the `len` of a tensor, which is a fixed number")
        return int(length)

    def __iter__(self) -> Iterator[Any]:
        return iter([operator.getitem(self, place) for place in range(len(self))])

    def __contains__(self, value: Any) -> bool:
        return bool(self.tracer.constant(self, "looks for a value in a tensor").__contains__(value))

    def __bool__(self) -> bool:
        return bool(self.tracer.constant(self, "decides on the values of a tensor"))

    def __int__(self) -> int:
        return int(self.tracer.constant(self, "turns a tensor into a number"))

    def __float__(self) -> float:
        return float(self.tracer.constant(self, "turns a tensor into a number"))

    def __index__(self) -> int:
        return operator.index(self.tracer.constant(self, "turns a tensor into a number"))

    def __format__(self, specification: str) -> str:
        if not specification:
            return repr(self)
        return format(self.tracer.constant(self, "writes the values of a tensor as text"), specification)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.tracer.constant(self, "turns a tensor into a numpy array").numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.clone()


class Shape(tuple):
    """The shape of a symbolic tensor: plain numbers, and symbols for sizes that depend on the batch size."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return torch.Size  # for `isinstance(x.shape, torch.Size)`

    def __getitem__(self, place: Any) -> Any:
        found = tuple.__getitem__(self, place)
        return Shape(found) if isinstance(place, slice) else found

    def __add__(self, other: Any) -> Any:
        return Shape((*self, *other))

    def __radd__(self, other: Any) -> Any:
        return Shape((*other, *self))

    def numel(self) -> Any:
        """Return the product of the sizes."""
        return math.prod(self)


class NumberSymbol(fx.Proxy):
    """A number that depends on the batch size.

    The symbol records arithmetic. It refuses every operation that would fix the batch size of the plain
    model.
    """

    tracer: Any  # the `Tracer` that made the symbol

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self.tracer.examples[self.node])  # for `isinstance(n, int)`

    def __getattr__(self, name: str) -> Any:
        getattr(self.tracer.examples[self.node], name)  # the number's own AttributeError
        raise fixed_batch_size(f"takes `{name}` of the batch size")

    def _refuse(self, *_: Any) -> NoReturn:
        raise fixed_batch_size("turns the batch size into a fixed number")

    __int__ = __float__ = __index__ = __trunc__ = __round__ = __floor__ = __ceil__ = __hash__ = _refuse
    __format__ = __str__ = __iter__ = __len__ = __contains__ = __divmod__ = __rdivmod__ = _refuse
    __deepcopy__ = lambda self, memo: self  # noqa: E731

    def __bool__(self) -> NoReturn:
        raise fixed_batch_size("decides on the batch size")

    def _compare(self, operation: Callable[[Any, Any], bool], other: Any) -> bool:
        """Return the result of a comparison that is the same for all batches, such as of two batch sizes."""
        if not isinstance(other, (int, float)):
            return operation(object(), other) if operation in (operator.eq, operator.ne) else bool(self)
        results = self.tracer.on_each_batch(operation, self, other)
        if isinstance(other, NumberSymbol) and results[0] == results[1]:
            return results[0]
        raise fixed_batch_size("decides on the batch size")

    def __eq__(self, other: object) -> bool:
        return self._compare(operator.eq, other)

    def __ne__(self, other: object) -> bool:
        return self._compare(operator.ne, other)

    def __lt__(self, other: Any) -> bool:
        return self._compare(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._compare(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._compare(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._compare(operator.ge, other)
