"""The check of the images that a network receives."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["check_input"]


def check_input(x: torch.Tensor, in_channels: int, size: int) -> None:
    """Raise `InvalidArgumentError` unless `x` is a batch of the shape that a network was built for.

    While torch traces the network, the function checks nothing, because the proxy of a tensor has no shape.

    Args:
        x: The input, (B, in_channels, size, size).
        in_channels: The number of channels that the network expects.
        size: The side of the square images that the network expects, in pixels.

    Example:
        >>> check_input(torch.zeros(2, 3, 95, 95), in_channels=3, size=95)
    """
    if not isinstance(x, torch.Tensor) or torch.jit.is_tracing():
        return
    if x.ndim != 4 or tuple(x.shape[1:]) != (in_channels, size, size):
        raise InvalidArgumentError(
            "x",
            received=f"shape {tuple(x.shape)}",
            expected=f"(batch, {in_channels}, {size}, {size})",
            remedy=f"Crop or resize the images to {size}×{size}, or build the network with the `in_channels` "
            "and `input_size` of your images.",
        )
