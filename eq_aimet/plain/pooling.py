"""Plain poolings in addition to torch's: over blocks of channels, and over windows of unequal size."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["GroupMaxPool", "UnevenAveragePool", "UnevenMaxPool"]


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
        size = self.blocks if isinstance(self.blocks, int) else self.blocks[0]
        if isinstance(self.blocks, int) or all(other == size for other in self.blocks):
            # ONNX's shape inference understands this reshape, but not `unflatten`.
            return x.reshape(x.shape[0], -1, size, *x.shape[2:]).amax(2)  # [batch, blocks, size, ...]
        return torch.cat([part.amax(1, keepdim=True) for part in torch.split(x, list(self.blocks), 1)], 1)

    def extra_repr(self) -> str:
        """Return the number of blocks for the module's string form."""
        if isinstance(self.blocks, int):
            return f"blocks of {self.blocks} channels"
        return f"{len(self.blocks)} blocks, {sum(self.blocks)} channels"


class _UnevenPool(torch.nn.Module):
    """The base of poolings to a size that does not divide the grid, whose windows overlap.

    Output cell i of m cells over n pixels sees the pixels from ⌊i·n/m⌋ to ⌈(i+1)·n/m⌉, as in torch's adaptive
    pooling. ONNX has no operator for these windows, so the module slices each of them.

    Args:
        output_size: Height and width of the output.
    """

    def __init__(self, output_size: tuple[int, int]) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled image, (…, output height, output width) of (…, height, width)."""
        rows, columns = (_windows(x.shape[axis], self.output_size[axis]) for axis in (-2, -1))
        cells = [[self._pool(x[..., row, column]) for column in columns] for row in rows]
        return torch.stack([torch.stack(line, -1) for line in cells], -2)

    def _pool(self, window: torch.Tensor) -> torch.Tensor:
        """Return one number for a window, (…) of (…, height, width)."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the argument for the module's string form."""
        return f"output_size={self.output_size}"


class UnevenMaxPool(_UnevenPool):
    """Adaptive maximum pooling to a size that does not divide the grid.

    Args:
        output_size: Height and width of the output.

    Example:
        >>> UnevenMaxPool((1, 2))(torch.tensor([[[[1.0, 5.0, 3.0]]]]))
        tensor([[[[5., 5.]]]])
    """

    def _pool(self, window: torch.Tensor) -> torch.Tensor:
        return window.amax((-2, -1))


class UnevenAveragePool(_UnevenPool):
    """Adaptive average pooling to a size that does not divide the grid.

    Args:
        output_size: Height and width of the output.

    Example:
        >>> UnevenAveragePool((1, 2))(torch.tensor([[[[1.0, 5.0, 3.0]]]]))
        tensor([[[[3., 4.]]]])
    """

    def _pool(self, window: torch.Tensor) -> torch.Tensor:
        return window.mean((-2, -1))


def _windows(pixels: int, cells: int) -> list[slice]:
    return [slice(cell * pixels // cells, -(-(cell + 1) * pixels // cells)) for cell in range(cells)]
