"""The few plain modules that an exported model needs beside torch's own."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["Add", "GroupMaxPool", "Mask"]


class Add(torch.nn.Module):
    """The sum of two tensors as a module, so that AIMET can quantize a residual addition."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x + y`."""
        return x + y


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


class GroupMaxPool(torch.nn.Module):
    """The maximum over each block of channels: group pooling as a plain module.

    Args:
        blocks: Sizes of the blocks in channel order.

    Example:
        >>> GroupMaxPool((2, 3))(torch.tensor([[1.0, 5.0, 2.0, 7.0, 0.0]]))
        tensor([[5., 7.]])
    """

    def __init__(self, blocks: tuple[int, ...]) -> None:
        super().__init__()
        if not blocks or any(size < 1 for size in blocks):
            raise InvalidArgumentError(
                "blocks",
                received=blocks,
                expected="one positive size per block",
                remedy="Give the sizes of the input's fields in channel order.",
            )
        self.blocks = tuple(int(size) for size in blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor with one channel per block, (batch, blocks, …) of (batch, channels, …)."""
        size = self.blocks[0]
        if all(other == size for other in self.blocks):
            return x.unflatten(1, (len(self.blocks), size)).amax(2)  # [batch, blocks, size, ...]
        return torch.cat([part.amax(1, keepdim=True) for part in x.split(self.blocks, 1)], 1)

    def extra_repr(self) -> str:
        """Return the number of blocks for the module's string form."""
        return f"{len(self.blocks)} blocks, {sum(self.blocks)} channels"
