"""Symbolic values inside e2cnn's typed tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2cnn.nn import FieldType, GeometricTensor
from torch import fx

__all__ = ["accept_symbols"]


@contextmanager
def accept_symbols() -> Iterator[None]:
    """Let `GeometricTensor` wrap a symbolic value, which the assertions of its constructor refuse."""
    original = GeometricTensor.__init__

    def initialize(self: GeometricTensor, tensor: Any, type: FieldType) -> None:
        if isinstance(tensor, fx.Proxy):
            self.tensor, self.type = tensor, type
        else:
            original(self, tensor, type)

    GeometricTensor.__init__ = initialize
    try:
        yield
    finally:
        GeometricTensor.__init__ = original
