"""The few plain modules that an exported model needs beside torch's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["Add", "Concat", "GroupMaxPool", "Mask", "Multiply", "SelectChannels", "Subtract"]


class Add(torch.nn.Module):
    """The sum of two tensors as a module, so that AIMET can quantize a residual addition."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x + y`."""
        return x + y


class Subtract(torch.nn.Module):
    """The difference of two tensors as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x - y`."""
        return x - y


class Multiply(torch.nn.Module):
    """The product of two tensors as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x * y`."""
        return x * y


class Concat(torch.nn.Module):
    """The concatenation of tensors as a module, so that AIMET can quantize it.

    Args:
        dim: The dimension along which the tensors are joined; the channels by default.
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the tensors one after the other along `dim`."""
        return torch.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        return f"dim={self.dim}"


class SelectChannels(torch.nn.Module):
    """Some channels of a tensor, in a given order; channels may be left out or repeated.

    Args:
        channels: The positions of the channels, in the order of the output.

    Example:
        >>> SelectChannels((2, 0))(torch.tensor([[10.0, 11.0, 12.0]]))
        tensor([[12., 10.]])
    """

    channels: torch.Tensor | None

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        positions = [int(channel) for channel in channels]
        if not positions or min(positions) < 0:
            raise InvalidArgumentError(
                "channels",
                received=positions,
                expected="one or more positions of channels, 0 or larger",
                remedy="Count the channels of the input from 0.",
            )
        self.start, self.stop = positions[0], positions[-1] + 1
        is_range = positions == list(range(self.start, self.stop))
        # Adjacent channels are a slice, which costs nothing; others need their list.
        self.register_buffer("channels", None if is_range else torch.tensor(positions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the selected channels, (batch, selected, …) of (batch, channels, …)."""
        if self.channels is None:
            return x[:, self.start : self.stop]
        return x.index_select(1, self.channels)

    def extra_repr(self) -> str:
        """Return the number of channels, or their range, for the module's string form."""
        return f"{self.start}:{self.stop}" if self.channels is None else f"{len(self.channels)} channels"


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
        blocks: Sizes of the blocks in channel order, or one size for any number of blocks.

    Example:
        >>> GroupMaxPool((2, 3))(torch.tensor([[1.0, 5.0, 2.0, 7.0, 0.0]]))
        tensor([[5., 7.]])
    """

    def __init__(self, blocks: int | tuple[int, ...]) -> None:
        super().__init__()
        sizes = (blocks,) if isinstance(blocks, int) else blocks
        if not sizes or any(size < 1 for size in sizes):
            raise InvalidArgumentError(
                "blocks",
                received=blocks,
                expected="one positive size per block",
                remedy="Give the sizes of the input's fields in channel order.",
            )
        self.blocks = blocks if isinstance(blocks, int) else tuple(int(size) for size in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor with one channel per block, (batch, blocks, …) of (batch, channels, …)."""
        if isinstance(self.blocks, int):
            return x.unflatten(1, (-1, self.blocks)).amax(2)
        size = self.blocks[0]
        if all(other == size for other in self.blocks):
            return x.unflatten(1, (len(self.blocks), size)).amax(2)  # [batch, blocks, size, ...]
        return torch.cat([part.amax(1, keepdim=True) for part in x.split(self.blocks, 1)], 1)

    def extra_repr(self) -> str:
        """Return the number of blocks for the module's string form."""
        if isinstance(self.blocks, int):
            return f"blocks of {self.blocks} channels"
        return f"{len(self.blocks)} blocks, {sum(self.blocks)} channels"
