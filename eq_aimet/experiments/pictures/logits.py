"""The logits of a classifier, checked."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["classifier_logits"]


def classifier_logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits, (batch, classes), of a classifier.

    Args:
        model: The classifier, in eval mode.
        images: A batch of images, on the model's device.

    Raises:
        InvalidArgumentError: The model fails on the images, or its output is not finite logits.

    Example:
        >>> classifier_logits(torch.nn.Flatten(), torch.ones(1, 2, 1, 1))
        tensor([[1., 1.]])
    """
    try:
        logits = model(images)
    except Exception as error:
        raise InvalidArgumentError(
            "images",
            received=f"{tuple(images.shape)}, on which the model fails with {type(error).__name__}: {error}",
            expected=f"images of the shape that {type(model).__name__} takes, on the model's device",
            remedy="Compare the shape and the device with those of the model; the original error is above.",
        ) from error
    if isinstance(logits, torch.Tensor) and logits.dim() == 2 and torch.isfinite(logits).all():
        return logits
    shape = f"shape {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else type(logits).__name__
    raise InvalidArgumentError(
        "model",
        received=f"an output of {shape}, or one that is not finite",
        expected="finite logits, (batch, classes)",
        remedy="Pass a classifier. For another network call `equivariance_error`.",
    )
