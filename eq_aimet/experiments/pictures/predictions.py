"""A classifier's predictions on single images, and the choice of images to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.logits import classifier_logits

__all__ = ["Predictions", "choose_examples", "measure_predictions"]


@dataclass(frozen=True)
class Predictions:
    """A classifier's answer for each image.

    Attributes:
        classes: The predicted class of each image.
        probabilities: The softmax of that class, from 0 to 1.
        labels: The true class of each image.
    """

    classes: tuple[int, ...]
    probabilities: tuple[float, ...]
    labels: tuple[int, ...]

    @property
    def right(self) -> tuple[bool, ...]:
        """Whether each image is classified correctly."""
        return tuple(found == label for found, label in zip(self.classes, self.labels, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions as plain values for JSON."""
        return {**asdict(self), "right": self.right}


def measure_predictions(
    model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, *, batch_size: int = 64
) -> Predictions:
    """Return the class that a classifier predicts for each image, with its probability.

    The model must be in eval mode and on the images' device; it is not changed.

    Args:
        model: The classifier; it takes images and returns logits, (batch, classes).
        images: The images, (batch, channels, H, W).
        labels: The classes of the images, int64, (batch,).
        batch_size: The number of images that run through the model at once.

    Raises:
        InvalidArgumentError: There is no image, the numbers of images and labels differ, the model fails on
            the images, or its output is not finite logits.

    Example:
        >>> logits = torch.tensor([[0.0, 3.0], [2.0, 0.0]])
        >>> measure_predictions(torch.nn.Identity(), logits, torch.tensor([1, 1])).right
        (True, False)
    """
    if len(images) == 0 or labels.shape != (len(images),):
        raise InvalidArgumentError(
            "labels",
            received=f"shape {tuple(labels.shape)} for {len(images)} images",
            expected="at least one image, and one label for each image",
            remedy="Give the labels of the same images.",
        )
    with torch.no_grad():
        logits = torch.cat([classifier_logits(model, batch) for batch in images.split(batch_size)])
    probabilities, classes = logits.double().softmax(1).max(1)
    return Predictions(tuple(classes.tolist()), tuple(probabilities.tolist()), tuple(labels.tolist()))


def choose_examples(predictions: Mapping[str, Predictions], count: int) -> tuple[int, ...]:
    """Return the indices of the images to show, in order.

    One half are the first images that all models classify correctly. The other half are the first images that
    at least one model classifies wrongly. So nobody has picked the images. If one kind has too few images,
    the other kind fills the places.

    Args:
        predictions: The predictions of each model on the same images.
        count: The number of images to return; if there are fewer images, all are returned.

    Raises:
        InvalidArgumentError: There is no model, the models saw different images, or the count is below 1.

    Example:
        >>> choose_examples({"a": Predictions((0, 0, 0, 1), (0.9, 0.8, 0.7, 0.6), (0, 0, 0, 0))}, 2)
        (0, 3)
    """
    if len({found.labels for found in predictions.values()}) != 1:
        raise InvalidArgumentError(
            "predictions",
            received=f"{len(predictions)} models on different images" if predictions else "no model",
            expected="the predictions of at least one model, all on the same images",
            remedy="Measure all models on the same images, in the same order.",
        )
    if count < 1:
        raise InvalidArgumentError("count", received=count, expected="at least 1", remedy="Take 12.")
    right = [all(answers) for answers in zip(*(found.right for found in predictions.values()), strict=True)]
    good = [index for index, answer in enumerate(right) if answer]
    bad = [index for index, answer in enumerate(right) if not answer]
    shown_bad = min(len(bad), max(count // 2, count - len(good)))
    return tuple(sorted(good[: count - shown_bad] + bad[:shown_bad]))
