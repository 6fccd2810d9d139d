"""Plain modules that compute the norm of each block of channels.

Blocks may have different sizes and stand in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from eq_aimet.errors import InvalidArgumentError

__all__ = ["BlockNorm", "NormActivation", "NormMaxPool"]

_SMALLEST_NORM = 1e-10  # the value of e2cnn: a shorter vector has no direction


class _BlockModule(torch.nn.Module):
    """The base of modules that use the norms of blocks.

    These modules hold no submodule for the norms, because AIMET would quantize the norms inside the module.

    Args:
        blocks: Sizes of the blocks in channel order.
    """

    channel_order: torch.Tensor
    block_order: torch.Tensor
    block_of_channel: torch.Tensor

    def __init__(self, blocks: Sequence[int]) -> None:
        super().__init__()
        self.blocks = tuple(int(size) for size in blocks)
        if not self.blocks or min(self.blocks) < 1:
            raise InvalidArgumentError(
                "blocks",
                received=tuple(blocks),
                expected="one positive size per block",
                remedy="Give the sizes of the input's fields in channel order.",
            )
        sizes = torch.tensor(self.blocks)
        self.sizes = tuple((size, self.blocks.count(size)) for size in sorted(set(self.blocks)))
        self.register_buffer("block_of_channel", torch.arange(len(sizes)).repeat_interleave(sizes))
        if len(self.sizes) > 1:
            # Blocks of equal size are computed together, so that the work does not grow with the number of
            # blocks.
            by_size = torch.argsort(sizes, stable=True)
            starts = torch.cumsum(sizes, 0) - sizes
            channels = [torch.arange(int(sizes[block])) + starts[block] for block in by_size]
            self.register_buffer("channel_order", torch.cat(channels))
            self.register_buffer("block_order", torch.argsort(by_size))

    def norms(self, x: torch.Tensor) -> torch.Tensor:
        """Return the norms, (batch, blocks, height, width) of (batch, channels, height, width)."""
        squares = x.square()
        if len(self.sizes) == 1:
            size, count = self.sizes[0]
            return torch.unflatten(squares, 1, (count, size)).sum(2).sqrt()  # [batch, blocks, size, ...]
        widths = [size * count for size, count in self.sizes]
        parts = torch.split(squares.index_select(1, self.channel_order), widths, 1)
        sums = [
            torch.unflatten(part, 1, (count, size)).sum(2)
            for part, (size, count) in zip(parts, self.sizes, strict=True)
        ]
        return torch.cat(sums, 1).index_select(1, self.block_order).sqrt()

    def extra_repr(self) -> str:
        """Return the number of blocks for the module's string form."""
        return f"{len(self.blocks)} blocks, {sum(self.blocks)} channels"


class BlockNorm(_BlockModule):
    """The Euclidean norm of each block of channels.

    Args:
        blocks: Sizes of the blocks in channel order.

    Example:
        >>> BlockNorm((2, 1))(torch.tensor([[[[3.0]], [[4.0]], [[-2.0]]]])).flatten()
        tensor([5., 2.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the norms, (batch, blocks, height, width) of (batch, channels, height, width)."""
        return self.norms(x)


class NormActivation(_BlockModule):
    """Each block rescaled so that its new norm is a function of its old norm: e2cnn's norm nonlinearity.

    Args:
        blocks: Sizes of the blocks in channel order.
        function: "relu", "sigmoid", "softplus" or "squash", which is n / (1 + n).
        bias: The number that is subtracted from each block's norm before the function, of shape (blocks,).
            If it is left out, nothing is subtracted.

    Example:
        >>> activation = NormActivation((2,), "relu", torch.tensor([4.0]))
        >>> activation(torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)).flatten()
        tensor([0.6000, 0.8000], grad_fn=<...>)
    """

    def __init__(self, blocks: Sequence[int], function: str, bias: torch.Tensor | None = None) -> None:
        super().__init__(blocks)
        if function not in _FUNCTIONS:
            raise InvalidArgumentError(
                "function",
                received=repr(function),
                expected=", ".join(f'"{name}"' for name in _FUNCTIONS),
                remedy="Compose other functions of torch's modules and `BlockNorm`.",
            )
        self.function = function
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rescaled blocks, of the shape (batch, channels, height, width) of `x`."""
        norms = self.norms(x)  # [batch, blocks, height, width]
        shifted = norms if self.bias is None else norms - self.bias.view(1, -1, 1, 1)
        factors = _FUNCTIONS[self.function](shifted) / norms.clamp(min=_SMALLEST_NORM)
        factors = torch.where(norms > _SMALLEST_NORM, factors, torch.zeros_like(factors))
        return x * factors.index_select(1, self.block_of_channel)

    def extra_repr(self) -> str:
        """Return blocks and function for the module's string form."""
        return f"{super().extra_repr()}, {self.function}, bias={self.bias is not None}"


def _squash(norms: torch.Tensor) -> torch.Tensor:
    return norms / (1.0 + norms)


_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "squash": _squash,
}


class NormMaxPool(_BlockModule):
    """Pooling that keeps, in each window, the vector with the largest norm of each block.

    Args:
        blocks: Sizes of the blocks in channel order.
        kernel_size: The window in pixels, (height, width); the other arguments are those of `MaxPool2d`.
        stride: The distance between windows.
        padding: The padding around the image; it is never the maximum.
        dilation: The distance between the pixels of a window.
        ceil_mode: Whether a window may overhang the border.

    Example:
        >>> x = torch.tensor([[[[1.0, 0.0]], [[0.0, -2.0]]]])  # two channels, two pixels
        >>> NormMaxPool((2,), (1, 2), (1, 2))(x).flatten()
        tensor([ 0., -2.])
    """

    def __init__(
        self,
        blocks: Sequence[int],
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(blocks)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled image, (batch, channels, pooled height, pooled width)."""
        places = F.max_pool2d(
            self.norms(x),
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            return_indices=True,
        )[1]
        places = places.index_select(1, self.block_of_channel)  # [batch, channels, height, width]
        return x.flatten(2).gather(2, places.flatten(2)).reshape(places.shape)

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{super().extra_repr()}, {window}"
