"""Plain modules that reduce dimensions to one number."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["Largest", "Mean", "Smallest", "Sum"]


class _Reduction(torch.nn.Module):
    """The base of modules that reduce some dimensions to one number.

    Args:
        dims: The dimensions.
        keepdim: Whether the dimensions stay, with size 1.
    """

    def __init__(self, dims: Sequence[int], keepdim: bool = False) -> None:
        super().__init__()
        self.dims = tuple(int(dim) for dim in dims)
        if not self.dims:
            raise InvalidArgumentError(
                "dims",
                received=tuple(dims),
                expected="one or more dimensions",
                remedy="Give the dimensions of the grid, for example `(2, 3)`.",
            )
        self.keepdim = keepdim

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        return f"dims={self.dims}, keepdim={self.keepdim}"


class Mean(_Reduction):
    """The mean over some dimensions.

    Args:
        dims: The dimensions, for example `(2, 3)` for the grid.
        keepdim: Whether the dimensions stay, with size 1.

    Example:
        >>> Mean((2, 3))(torch.arange(4.0).reshape(1, 1, 2, 2))
        tensor([[1.5000]])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean of `x` over the dimensions."""
        return x.mean(self.dims, keepdim=self.keepdim)


class Sum(_Reduction):
    """The sum over some dimensions.

    Args:
        dims: The dimensions, for example `(2, 3)` for the grid.
        keepdim: Whether the dimensions stay, with size 1.

    Example:
        >>> Sum((2, 3))(torch.arange(4.0).reshape(1, 1, 2, 2))
        tensor([[6.]])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of `x` over the dimensions."""
        return x.sum(self.dims, keepdim=self.keepdim)


class Largest(_Reduction):
    """The largest entry over some dimensions.

    Args:
        dims: The dimensions, for example `(2, 3)` for the grid.
        keepdim: Whether the dimensions stay, with size 1.

    Example:
        >>> Largest((2, 3))(torch.arange(4.0).reshape(1, 1, 2, 2))
        tensor([[3.]])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the largest entry of `x` over the dimensions."""
        return x.amax(self.dims, keepdim=self.keepdim)


class Smallest(_Reduction):
    """The smallest entry over some dimensions.

    Args:
        dims: The dimensions, for example `(2, 3)` for the grid.
        keepdim: Whether the dimensions stay, with size 1.

    Example:
        >>> Smallest((2, 3))(torch.arange(4.0).reshape(1, 1, 2, 2))
        tensor([[0.]])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the smallest entry of `x` over the dimensions."""
        return x.amin(self.dims, keepdim=self.keepdim)
