"""A batch norm whose statistics are taken over whole orbits of channels, as e2cnn's `InnerBatchNorm` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["tied_batch_norm"]


def tied_batch_norm(layer: Any, orbits: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a `forward` for a batch norm; in eval mode it does what the batch norm does.

    In training mode the mean and the variance of a batch are those of all channels of an orbit together. The
    running statistics of an orbit therefore stay equal, bit for bit.

    Args:
        layer: A batch norm of torch.
        orbits: The orbit of each channel, of shape (channels,).
    """
    counts = torch.bincount(orbits)

    def over_orbits(values: torch.Tensor) -> torch.Tensor:
        """Return, for each channel, the mean over its orbit."""
        places = orbits.to(values.device)
        sums = values.new_zeros(len(counts)).index_add(0, places, values)
        return (sums / counts.to(values.device))[places]

    def forward(images: torch.Tensor) -> torch.Tensor:
        if not layer.training:
            output: torch.Tensor = type(layer).forward(layer, images)
            return output
        others = [axis for axis in range(images.dim()) if axis != 1]
        shape = [1, -1, *[1] * (images.dim() - 2)]
        means = over_orbits(images.mean(others))  # [channels]
        centred = images - means.reshape(shape)
        variances = over_orbits(centred.square().mean(others))
        values = counts[orbits].to(variances.device) * (images.numel() // images.shape[1])  # in each orbit
        _update(layer, means.detach(), variances.detach() * values / (values - 1))
        output = centred * (variances + layer.eps).rsqrt().reshape(shape)
        if layer.affine:
            output = output * layer.weight.reshape(shape) + layer.bias.reshape(shape)
        return output.to(images.dtype)

    return forward


@torch.no_grad()
def _update(layer: Any, means: torch.Tensor, variances: torch.Tensor) -> None:
    """Move the running statistics towards those of the batch, in place, as torch does."""
    if not layer.track_running_stats or layer.running_mean is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)
    for running, batch in ((layer.running_mean, means), (layer.running_var, variances)):
        running.mul_(1 - momentum).add_(batch.to(running.dtype) * momentum)
