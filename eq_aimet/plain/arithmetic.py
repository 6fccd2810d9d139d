"""Plain modules that combine two tensors."""

from __future__ import annotations

import torch

__all__ = ["Add", "Divide", "MatrixProduct", "Maximum", "Minimum", "Multiply", "Subtract"]


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


class Divide(torch.nn.Module):
    """The quotient of two tensors as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x / y`."""
        return x / y


class Maximum(torch.nn.Module):
    """The larger entry of two tensors, place by place, as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `torch.maximum(x, y)`."""
        return torch.maximum(x, y)


class Minimum(torch.nn.Module):
    """The smaller entry of two tensors, place by place, as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `torch.minimum(x, y)`."""
        return torch.minimum(x, y)


class MatrixProduct(torch.nn.Module):
    """The matrix product of two tensors as a module, so that AIMET can quantize it."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return `x @ y`."""
        return x @ y
