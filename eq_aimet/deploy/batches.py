"""Runs many images in batches of the file's fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from eq_aimet.errors import InvalidArgumentError

__all__ = ["fill_batch", "run_in_batches"]


def fill_batch(images: np.ndarray, size: int) -> np.ndarray:
    """Return a batch of `size` images: the first `size` of `images`, filled up with copies of the first one.

    Example:
        >>> fill_batch(np.array([[1], [2]]), 4).ravel().tolist()
        [1, 2, 1, 1]
    """
    missing = max(size - len(images), 0)
    return np.concatenate([images[:size], np.repeat(images[:1], missing, 0)]) if missing else images[:size]


def run_in_batches(
    run: Callable[[Sequence[np.ndarray]], list[np.ndarray]], inputs: Sequence[np.ndarray], size: int
) -> list[np.ndarray]:
    """Return all outputs for all images.

    Args:
        run: A function that returns the outputs for one batch.
        inputs: One array per input, each with the images along the first dimension.
        size: The batch size.

    Raises:
        InvalidArgumentError: If an output does not have the images along its first dimension.
    """
    count = len(inputs[0])
    parts = []
    for start in range(0, count, size):
        outputs = run([fill_batch(array[start : start + size], size) for array in inputs])
        for number, output in enumerate(outputs):
            _check_batch(number, output, size)
        parts.append([output[: count - start] for output in outputs])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _check_batch(number: int, output: np.ndarray, size: int) -> None:
    if output.ndim == 0 or len(output) != size:
        raise InvalidArgumentError(
            "path",
            received=f"a file whose output {number} has the shape {output.shape} for a batch of {size}",
            expected="outputs with the images of the batch along the first dimension",
            remedy="Return one value or row per image from the model; reduce over the batch outside of it.",
        )
