"""A batch norm that computes its statistics over whole orbits of channels, as e2cnn's `InnerBatchNorm`."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["TiedBatchNorm"]


class TiedBatchNorm:
    """The `forward` of a batch norm; in eval mode it does what the batch norm does.

    In training mode the mean and the variance of a batch are computed over all channels of an orbit together.
    The running statistics of an orbit therefore stay equal, bit for bit. This is an object and not a
    function, so that a copy of the batch norm gets its own `forward`.

    Args:
        layer: A batch norm of torch.
        orbits: The orbit of each channel, of shape (channels,).
    """

    def __init__(self, layer: Any, orbits: torch.Tensor) -> None:
        self._layer, self._orbits = layer, orbits
        self._counts = torch.bincount(orbits)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalized images, of shape (images, channels, …)."""
        layer = self._layer
        if not layer.training:
            output: torch.Tensor = type(layer).forward(layer, images)
            return output
        others = [axis for axis in range(images.dim()) if axis != 1]
        shape = [1, -1, *[1] * (images.dim() - 2)]
        means = self._over_orbits(images.mean(others))  # [channels]
        centred = images - means.reshape(shape)
        variances = self._over_orbits(centred.square().mean(others))
        counts = self._counts[self._orbits].to(variances.device)
        values = counts * (images.numel() // images.shape[1])  # in each orbit
        _update(layer, means.detach(), variances.detach() * values / (values - 1))
        output = centred * (variances + layer.eps).rsqrt().reshape(shape)
        if layer.affine:
            output = output * layer.weight.reshape(shape) + layer.bias.reshape(shape)
        return output.to(images.dtype)

    def _over_orbits(self, values: torch.Tensor) -> torch.Tensor:
        """Return, for each channel, the mean over its orbit."""
        places = self._orbits.to(values.device)
        sums = values.new_zeros(len(self._counts)).index_add(0, places, values)
        return (sums / self._counts.to(values.device))[places]


@torch.no_grad()
def _update(layer: Any, means: torch.Tensor, variances: torch.Tensor) -> None:
    """Move the running statistics towards the statistics of the batch, in place, as torch does."""
    if not layer.track_running_stats or layer.running_mean is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)
    for running, batch in ((layer.running_mean, means), (layer.running_var, variances)):
        running.mul_(1 - momentum).add_(batch.to(running.dtype) * momentum)
