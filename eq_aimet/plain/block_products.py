"""Products of the channels of each block."""

from __future__ import annotations

import torch

from eq_aimet.plain.arithmetic import Multiply
from eq_aimet.plain.channels import SelectChannels

__all__ = ["BlockProducts"]


class BlockProducts(torch.nn.Module):
    """The products of all pairs of channels of each block.

    Args:
        blocks: The number of blocks.
        size: The number of channels of each block.

    Example:
        >>> BlockProducts(1, 2)(torch.tensor([[2.0, 3.0]]))
        tensor([[4., 6., 6., 9.]])
    """

    def __init__(self, blocks: int, size: int) -> None:
        super().__init__()
        starts = range(0, blocks * size, size)
        pairs = [(start + a, start + b) for start in starts for a in range(size) for b in range(size)]
        self.first = SelectChannels([a for a, _ in pairs])
        self.second = SelectChannels([b for _, b in pairs])
        self.multiply = Multiply()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the products, (batch, blocks · size², …) of (batch, blocks · size, …)."""
        products: torch.Tensor = self.multiply(self.first(x), self.second(x))
        return products
