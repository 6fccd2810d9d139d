"""The circular mask, as plain numbers."""

from __future__ import annotations

import torch

__all__ = ["circular_mask"]


def circular_mask(size: int) -> torch.Tensor:
    """Return 1 within the circle inscribed in a grid, by pixel centres, else 0: (1, 1, size, size).

    A turn moves pixels outside that circle off the grid, and other values take their place. So a network
    that sees the pixels outside the circle can't be invariant. The mask is binary: it changes no number
    inside the circle, and quantization does not change the mask.

    Args:
        size: The side of the square grid in pixels.

    >>> circular_mask(5)[0, 0].int()
    tensor([[0, 1, 1, 1, 0],
            [1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1],
            [0, 1, 1, 1, 0]], dtype=torch.int32)
    """
    # Coordinates in half pixels from the centre are integers, so the comparison is exact.
    halves = 2 * torch.arange(size) - (size - 1)
    within = halves[:, None] ** 2 + halves[None, :] ** 2 <= size**2
    return within.to(torch.get_default_dtype())[None, None]
