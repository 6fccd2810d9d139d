"""The layers of the conventional networks (convolution, batch norm, ReLU) and their initial weights."""

from __future__ import annotations

import torch

__all__ = ["convolve", "initialize"]


def convolve(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> list[torch.nn.Module]:
    """Return a convolution, a batch norm and a ReLU."""
    return [
        torch.nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False),
        torch.nn.BatchNorm2d(out_channels),
        torch.nn.ReLU(),
    ]


def initialize(network: torch.nn.Module) -> None:
    """Initialise the network in place: convolutions by the method of He et al., the classifier near zero."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.01)
            torch.nn.init.zeros_(module.bias)
