"""Padding by a number other than zero, as a plain module."""

from __future__ import annotations

import torch
from torch.nn import functional as F

__all__ = ["ConstantPad"]


class ConstantPad(torch.nn.Module):
    """Padding by one number, of any number of dimensions.

    AIMET treats torch's `ConstantPad2d` as a movement of data, and gives it no quantizer. But the number may
    lie outside the range of the input, so the output of this module has a quantizer.

    Args:
        padding: Pixels before and after, from the last dimension on, as `torch.nn.functional.pad` takes them.
        value: The number.

    Example:
        >>> ConstantPad((1, 0), 9.0)(torch.tensor([[1.0]]))
        tensor([[9., 1.]])
    """

    def __init__(self, padding: tuple[int, ...], value: float) -> None:
        super().__init__()
        self.padding, self.value = padding, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the padded tensor."""
        return F.pad(x, self.padding, value=self.value)

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        return f"{self.padding}, value={self.value:g}"
