"""What a layer is: which modules have channels to scale, how many, and how blocks are written as text."""

from __future__ import annotations

from itertools import groupby
from typing import TypeAlias, TypeGuard

import torch

__all__ = ["Convolution", "channel_counts", "describe_blocks", "is_convolution", "is_layer", "is_transposed"]

Convolution: TypeAlias = (
    torch.nn.Conv1d | torch.nn.Conv2d | torch.nn.ConvTranspose1d | torch.nn.ConvTranspose2d
)
_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)


def describe_blocks(blocks: tuple[int, ...]) -> str:
    """Return e.g. `20×8 + 4×1` for twenty blocks of eight channels and four of one."""
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
