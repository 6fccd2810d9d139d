"""Symbolic values inside escnn's typed tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from escnn.nn import FieldType, GeometricTensor
from torch import fx

__all__ = ["accept_symbols"]


@contextmanager
def accept_symbols() -> Iterator[None]:
    """Let `GeometricTensor` wrap a symbolic value, which the assertions of its constructor refuse.

    A symbolic tensor has no coordinates: a grid needs none, and modules for points off the grid are refused.
    """
    original = GeometricTensor.__init__

    def initialize(self: GeometricTensor, tensor: Any, type: FieldType, coords: Any = None) -> None:
        if isinstance(tensor, fx.Proxy):
            self.tensor, self.type, self.coords = tensor, type, None
        else:
            original(self, tensor, type, coords)

    GeometricTensor.__init__ = initialize
    try:
        yield
    finally:
        GeometricTensor.__init__ = original
