"""Layers: the modules whose channels can be scaled, their channel counts, and the text form of blocks."""

from __future__ import annotations

from itertools import groupby
from typing import Any, TypeAlias, TypeGuard

import torch

from eq_aimet.symmetry.scaling import channel_ranges

__all__ = [
    "Convolution",
    "channel_counts",
    "describe_blocks",
    "is_convolution",
    "is_layer",
    "is_transposed",
    "layer_ranges",
]

Convolution: TypeAlias = (
    torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.ConvTranspose1d | torch.nn.ConvTranspose2d
)
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)


def describe_blocks(blocks: tuple[int, ...]) -> str:
    """Return e.g. `20×8 + 4×1` for twenty blocks of eight channels and four blocks of one channel."""
    return " + ".join(f"{len(list(run))}×{size}" for size, run in groupby(blocks)) or "none"


def is_convolution(module: torch.nn.Module) -> TypeGuard[Convolution]:
    """Return whether `module` is a convolution of one or two dimensions, the transposed ones included."""
    return isinstance(module, _CONVOLUTIONS)


def is_layer(module: torch.nn.Module) -> TypeGuard[Convolution | torch.nn.Linear]:
    """Return whether `module` is a layer whose channels can be scaled: a convolution or a linear layer."""
    return isinstance(module, (*_CONVOLUTIONS, torch.nn.Linear))


def is_transposed(module: torch.nn.Module) -> bool:
    """Return whether `module` is a transposed convolution, whose weight is (in, out/groups, …)."""
    return isinstance(module, _TRANSPOSED)


def channel_counts(layer: torch.nn.Module) -> tuple[int, int] | None:
    """Return the (input, output) channels of a convolution, linear layer or 2D batch norm, else `None`."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, torch.nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
        return layer.num_features, layer.num_features
    return None


def layer_ranges(layer: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest |w| of each output channel and of each input channel of a layer.

    Args:
        layer: A module that `is_layer` accepts; it may be a transposed convolution.

    Returns:
        The ranges, of shapes (output channels,) and (input channels,).

    Example:
        >>> layer = torch.nn.ConvTranspose2d(2, 3, 1)
        >>> [tuple(ranges.shape) for ranges in layer_ranges(layer)]
        [(3,), (2,)]
    """
    weight: Any = layer.weight
    rows, columns = channel_ranges(weight, int(getattr(layer, "groups", 1)))
    return (columns, rows) if is_transposed(layer) else (rows, columns)
