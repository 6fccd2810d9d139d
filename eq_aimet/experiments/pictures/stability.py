"""The stability of a classifier's predictions while its images make a full turn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.logits import classifier_logits
from eq_aimet.symmetry.elements import Element
from eq_aimet.symmetry.judging import copy_for_judging

__all__ = ["Stability", "measure_stability"]


@dataclass(frozen=True)
class Stability:
    """The stability of a classifier's predictions under turns of its images.

    Attributes:
        angles: Degrees counter-clockwise, from 0 to below 360.
        agreement: At each angle, the share of images with the same predicted class as at 0°, from 0 to 1.
        logit_change: At each angle, the mean change of a logit against 0°, relative to the mean magnitude
            of the logits at 0°.
        images: The number of images that were turned.
    """

    angles: tuple[float, ...]
    agreement: tuple[float, ...]
    logit_change: tuple[float, ...]
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain values for JSON, with the worst angle's figures."""
        return {
            **asdict(self),
            "worst_agreement": min(self.agreement),
            "worst_logit_change": max(self.logit_change),
        }


def measure_stability(
    model: torch.nn.Module,
    images: torch.Tensor,
    *,
    step: float = 5,
    dtype: torch.dtype = torch.float64,
    batch_size: int = 64,
) -> Stability:
    """Return how often a classifier keeps its answer while its images make a full turn.

    Each image, at 0° too, is zero outside the inscribed circle, since a turn would change the corners. Turns
    by multiples of 90° only move pixels. Turns by other angles interpolate, which is a part of the change.
    The function runs a copy of the model in eval mode, by default in float64: in float32 the order of
    summation flips roundings of a quantized model.

    Args:
        model: The classifier; it takes images and returns logits, (batch, classes).
        images: The images, floating-point, (batch, channels, H, H), on the model's device.
        step: The degrees from one angle to the next; a divisor of 90, so that the exact turns are included.
        dtype: The floating-point type of the computation.
        batch_size: The number of images that run through the model at once.

    Raises:
        InvalidArgumentError: An argument is not as described, or the model fails on the images.

    Example:
        >>> images = torch.rand(2, 2, 9, 9)
        >>> mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> stability = measure_stability(mean, images, step=90)
        >>> stability.angles, stability.agreement
        ((0.0, 90.0, 180.0, 270.0), (1.0, 1.0, 1.0, 1.0))
    """
    angles = _angles(step)
    _check_images(images)
    judge = copy_for_judging(model, dtype)
    same = torch.zeros(len(angles), dtype=torch.float64)
    change = torch.zeros(len(angles), dtype=torch.float64)
    magnitude = 0.0
    with torch.no_grad():
        for batch in images.detach().to(dtype).split(batch_size):
            circle = _circle(batch)
            reference = classifier_logits(judge, batch * circle)
            magnitude += float(reference.abs().mean(1).sum())
            for index, angle in enumerate(angles):
                logits = classifier_logits(judge, Element(angle).turn(batch) * circle) if angle else reference
                same[index] += (logits.argmax(1) == reference.argmax(1)).sum().cpu()
                change[index] += (logits - reference).abs().mean(1).sum().cpu()
    return Stability(
        angles,
        tuple((same / len(images)).tolist()),
        tuple((change / (magnitude or 1.0)).tolist()),
        len(images),
    )


def _angles(step: float) -> tuple[float, ...]:
    fits = isinstance(step, (int, float)) and 0 < step <= 90 and (90 / step).is_integer()
    if not fits:
        raise InvalidArgumentError(
            "step",
            received=repr(step),
            expected="a number of degrees that divides 90",
            remedy="Take 5, or 15 for a quick look.",
        )
    return tuple(float(index * step) for index in range(round(360 / step)))


def _check_images(images: torch.Tensor) -> None:
    if not isinstance(images, torch.Tensor):
        received = f"a {type(images).__name__}"
    elif not images.is_floating_point():
        received = f"a tensor of {images.dtype}"
    elif images.dim() != 4 or images.shape[-1] != images.shape[-2] or 0 in images.shape:
        received = f"shape {tuple(images.shape)}"
    elif not torch.isfinite(images).all():
        received = "NaN or infinite values"
    else:
        return
    raise InvalidArgumentError(
        "images",
        received=received,
        expected="a finite floating-point tensor of square images, (batch, channels, H, H)",
        remedy="Convert to float, add the batch dimension, or crop the images to squares.",
    )


def _circle(images: torch.Tensor) -> torch.Tensor:
    """Return 1 within the circle that is inscribed in the images and 0 outside, (H, H)."""
    size = images.shape[-1]
    places = (2 * torch.arange(size, device=images.device, dtype=images.dtype) + 1) / size - 1
    return (places[:, None].square() + places.square() <= 1).to(images.dtype)
