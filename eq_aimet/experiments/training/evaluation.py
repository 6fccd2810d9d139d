"""Measuring a model's accuracy."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torchmetrics.classification import MulticlassAccuracy

from eq_aimet.errors import InvalidArgumentError

__all__ = ["measure_accuracy"]


def measure_accuracy(
    model: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    classes: int = 2,
    device: str | torch.device = "cpu",
) -> float:
    """Return the share of images, from 0 to 1, for which the label has the largest logit.

    The model must be on the device and in eval mode; it is not changed.

    Args:
        model: Takes images, (batch, channels, H, W), gives logits, (batch, classes).
        batches: Pairs of images and labels, int64, (batch,).
        classes: The number of classes.
        device: The device of the model.

    Raises:
        InvalidArgumentError: There is no batch, or an image or a logit is not finite.

    Example:
        >>> batches = [(torch.eye(2), torch.tensor([0, 0]))]
        >>> measure_accuracy(torch.nn.Identity(), batches)
        0.5
    """
    accuracy = MulticlassAccuracy(classes, average="micro").to(device)
    with torch.no_grad():
        for images, labels in batches:
            logits = model(images.to(device))
            if not torch.isfinite(logits).all():
                is_fault_of_model = bool(torch.isfinite(images).all())
                raise InvalidArgumentError(
                    "model" if is_fault_of_model else "batches",
                    received=f"{'logits' if is_fault_of_model else 'images'} with NaN or infinite values",
                    expected="finite images and a model that gives finite logits",
                    remedy="Look at the images, and at the weights of the model.",
                )
            accuracy.update(logits, labels.to(device))
    if not accuracy.update_called:
        raise InvalidArgumentError(
            "batches", received="none", expected="at least one batch", remedy="Check the data set's size."
        )
    return float(accuracy.compute())
