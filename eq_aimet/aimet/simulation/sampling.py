"""Outputs that a layer may have: samples and bounds from its batch norm, or bounds from its inputs."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch

from eq_aimet.aimet.output_statistics import OutputStatistics

__all__ = ["farthest_output", "input_sample", "linear_bound", "normal_output"]

# The share of a variance that all positions of an image have in common. An average over positions keeps it.
_COMMON = 0.5


def normal_output(
    statistics: OutputStatistics, output: torch.Tensor, limit: float, *, axis: int, seed: int
) -> torch.Tensor:
    """Return a sample of each channel's N(mean, σ), clipped to mean ± `limit`·σ, shaped as `output`.

    All positions of an image share half of the variance, because neighbouring pixels of images are alike.

    Args:
        statistics: Mean and σ of each channel.
        output: A tensor whose channels are along `axis`.
        limit: The largest distance of a sample from the mean, in standard deviations.
        axis: The dimension of the channels.
        seed: The seed of the sample; one seed gives one sample on each machine.

    Example:
        >>> statistics = OutputStatistics((5.0,), (2.0,), ())
        >>> sample = normal_output(statistics, torch.empty(8, 1, 30, 30), 3, axis=1, seed=0)
        >>> round(float(sample.min())), round(float(sample.mean())), round(float(sample.max()))
        (-1, 5, 11)
    """
    generator = torch.Generator().manual_seed(seed)
    axis %= output.dim()
    # [images, channels, 1 …]: one number for all positions
    common = [size if place in (0, axis) else 1 for place, size in enumerate(output.shape)]
    spread = torch.randn(output.shape, generator=generator, dtype=torch.float64) * (1 - _COMMON) ** 0.5
    spread += torch.randn(common, generator=generator, dtype=torch.float64) * _COMMON**0.5
    return _spread_out(statistics, output, spread.clamp(-limit, limit), axis)


def farthest_output(
    statistics: OutputStatistics, output: torch.Tensor, limit: float, *, axis: int
) -> torch.Tensor:
    """Return mean + `limit`·σ of each channel at all positions, shaped and typed as `output`.

    Example:
        >>> statistics = OutputStatistics((5.0, 1.0), (2.0, 0.0), ())
        >>> farthest_output(statistics, torch.empty(1, 2), -3, axis=1)
        tensor([[-1.,  1.]])
    """
    spread = torch.full(output.shape, limit, dtype=torch.float64)
    return _spread_out(statistics, output, spread, axis % output.dim())


def _spread_out(
    statistics: OutputStatistics, output: torch.Tensor, spread: torch.Tensor, axis: int
) -> torch.Tensor:
    along = [-1 if place == axis else 1 for place in range(output.dim())]
    means = torch.tensor(statistics.means, dtype=torch.float64).reshape(along)
    deviations = torch.tensor(statistics.deviations, dtype=torch.float64).reshape(along)
    return (means + deviations * spread).to(output)


def linear_bound(layer: Any, farthest: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
    """Return W⁺ x⁺ + W⁻ x⁻ + b: the largest output of a layer whose input lies between two tensors.

    With the two tensors exchanged, the result is the smallest output.

    Args:
        layer: A convolution or linear layer of torch.
        farthest: The largest input x⁺, of the shape that the layer takes.
        nearest: The smallest input x⁻.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> layer.weight.data, layer.bias.data = torch.tensor([[2.0, -1.0]]), torch.tensor([0.5])
        >>> linear_bound(layer, torch.ones(1, 2), torch.zeros(1, 2))
        tensor([[2.5000]])
    """
    weight, bias = layer.weight.detach(), layer.bias
    bound: torch.Tensor = _apply(layer, farthest, weight.clamp(min=0), bias)
    return bound + _apply(layer, nearest, weight.clamp(max=0), None)


@torch.no_grad()
def _apply(layer: Any, tensor: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    twin = copy(layer)
    twin._parameters = {"weight": weight, "bias": bias}
    output: torch.Tensor = twin.forward(tensor)  # not a call, which would run the layer's hooks
    return output


def input_sample(tensor: torch.Tensor, lowest: float, highest: float, *, seed: int) -> torch.Tensor:
    """Return values spread evenly over a range, both ends included, shaped and typed as `tensor`.

    Example:
        >>> input_sample(torch.empty(1, 1, 2, 2), -1.0, 2.0, seed=0).flatten().sort().values.tolist()
        [-1.0, 0.0, 1.0, 2.0]
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.linspace(lowest, highest, tensor.numel(), dtype=torch.float64)
    return values[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape).to(tensor)
