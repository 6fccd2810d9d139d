"""The circular mask as an equivariant module, for every library."""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain.circular_mask import circular_mask

__all__ = ["CircularMaskParts"]


class CircularMaskParts(torch.nn.Module):
    """Sets the pixels outside the inscribed circle to zero; an adapter joins it to its library's base class.

    The `MaskModule` of e2cnn and escnn fades out smoothly, and its fade starts at a radius that is half a
    pixel smaller. This mask is binary.

    Args:
        in_type: The field type of input and output.
        size: The side of the square grid in pixels.
    """

    mask: torch.Tensor

    def __init__(self, in_type: Any, size: int) -> None:
        super().__init__()
        self.in_type = in_type
        self.out_type = in_type
        self.size = size
        self.register_buffer("mask", circular_mask(size), persistent=False)

    def forward(self, input: Any) -> Any:
        """Return the masked field of the same type, (B, C, size, size).

        Raises:
            InvalidArgumentError: If the input has another type, or its grid is not size × size.
        """
        if input.type != self.in_type:
            raise InvalidArgumentError(
                "input",
                received=f"a field of type {input.type}",
                expected=f"type {self.in_type}",
                remedy="Build the mask with the field type of its input.",
            )
        grid = tuple(input.tensor.shape[2:])
        if not torch.jit.is_tracing() and grid != (self.size, self.size):
            raise InvalidArgumentError(
                "input",
                received=f"a grid of {grid}",
                expected=f"{(self.size, self.size)}",
                remedy="Build the mask with the size of its input.",
            )
        return type(input)(input.tensor * self.mask, self.out_type)

    def evaluate_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return `input_shape`, (B, C, size, size)."""
        return input_shape

    def export(self) -> torch.nn.Module:
        """Return a new plain `eq_aimet.plain.Mask` in eval mode; this module keeps its mode."""
        from eq_aimet.plain import Mask

        return Mask(self.mask.clone()).eval()

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"{self.in_type}, size={self.size}"
