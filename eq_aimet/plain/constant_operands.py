"""Plain modules that combine a tensor with a constant."""

from __future__ import annotations

import torch

__all__ = ["Mask", "Scale", "Shift"]


class Mask(torch.nn.Module):
    """Multiplication by a constant mask.

    Args:
        mask: The mask, of a shape that broadcasts with (batch, channels, height, width).
    """

    mask: torch.Tensor

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x * mask`."""
        return x * self.mask


class Scale(torch.nn.Module):
    """A tensor times, or divided by, a constant: the learned factor of LayerScale or ReZero, or a number.

    Args:
        factor: A number, or a tensor that broadcasts with the input. The module keeps a parameter itself, so
            that training reaches it, and any other tensor as a buffer.
        divides: Whether the module divides by `factor`.

    Example:
        >>> Scale(0.5)(torch.tensor([2.0, 3.0]))
        tensor([1.0000, 1.5000])
    """

    factor: torch.Tensor | float

    def __init__(self, factor: torch.Tensor | float, *, divides: bool = False) -> None:
        super().__init__()
        _keep(self, "factor", factor)
        self.divides = divides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x * factor`, or `x / factor`."""
        return x / self.factor if self.divides else x * self.factor

    def extra_repr(self) -> str:
        """Return the operation for the module's string form."""
        return f"{'/' if self.divides else '*'} {_described(self.factor)}"


class Shift(torch.nn.Module):
    """A tensor plus, or minus, a constant: a learned bias, a positional embedding, or a number.

    Args:
        offset: A number, or a tensor that broadcasts with the input. The module keeps a parameter itself, so
            that training reaches it, and any other tensor as a buffer.
        subtracts: Whether the module subtracts `offset`.

    Example:
        >>> Shift(1.0, subtracts=True)(torch.tensor([2.0, 3.0]))
        tensor([1., 2.])
    """

    offset: torch.Tensor | float

    def __init__(self, offset: torch.Tensor | float, *, subtracts: bool = False) -> None:
        super().__init__()
        _keep(self, "offset", offset)
        self.subtracts = subtracts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x + offset`, or `x - offset`."""
        return x - self.offset if self.subtracts else x + self.offset

    def extra_repr(self) -> str:
        """Return the operation for the module's string form."""
        return f"{'-' if self.subtracts else '+'} {_described(self.offset)}"


def _keep(module: torch.nn.Module, name: str, value: torch.Tensor | float) -> None:
    """Make `value` a parameter, a buffer or a plain attribute of `module`, in place."""
    if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
        module.register_buffer(name, value)
    else:
        setattr(module, name, value)


def _described(value: torch.Tensor | float) -> str:
    return f"tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value:g}"
