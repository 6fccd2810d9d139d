"""The arguments of a function, as its converter receives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Activation", "Converter", "Operand", "is_constant"]


@dataclass(frozen=True, eq=False)
class Activation:
    """An argument that depends on the model's input.

    Attributes:
        example: Its value on the dummy input.
    """

    example: torch.Tensor

    @property
    def rank(self) -> int:
        """Return the number of dimensions."""
        return self.example.dim()


Operand = Activation | torch.Tensor | float

# A converter takes the arguments of a torch function by the function's parameter names: activations as
# `Activation`, parameters, buffers and constants as tensors, and numbers as numbers. It returns the module
# that computes the same result from the activations. It returns `None` if no module accepts the arguments.
Converter = Callable[..., "torch.nn.Module | None"]


def is_constant(operand: Any, like: Activation) -> bool:
    """Return whether `operand` is a number or a constant tensor that keeps the shape and dtype of `like`."""
    if isinstance(operand, torch.Tensor):
        shape = torch.broadcast_shapes(operand.shape, like.example.shape)
        return operand.dtype == like.example.dtype and shape == like.example.shape
    return isinstance(operand, (int, float)) and like.example.is_floating_point()
