"""Rotated MNIST: handwritten digits, each turned by its own angle.

After Larochelle et al., "An Empirical Evaluation of Deep Architectures on Problems with Many Factors of
Variation", 2007: 12,000 training images, of which the last 2,000 are for validation. Test images are MNIST's
own.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.files import data_error

__all__ = ["ROTATED_MNIST_COUNTS", "RotatedMnist", "check_mnist"]

ROTATED_MNIST_COUNTS = {"train": 10_000, "valid": 2_000, "test": 10_000}
_SHAPE = (28, 28)
_SMALLEST = 29
_STARTS = {"train": 0, "valid": 10_000, "test": 0}
_BATCH = 500


class RotatedMnist(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The samples of one split: an image, float32, shape (1, size, size), and its digit, int64, 0 to 9.

    The angles are uniform over the circle and follow from the split alone, so that the data are the same in
    each run. Digits are turned about their centre by bilinear interpolation, once, to the grid's middle.

    Args:
        path: A numpy archive with `x_train`, (n, 28, 28) uint8, `y_train`, (n,), `x_test` and `y_test`.
        split: "train", "valid" or "test".
        size: The side of the images in pixels, odd and at least 29.
        limit: How many samples to keep, from the first one on; by default all.

    Raises:
        InvalidArgumentError: The split, size or limit is not possible.
        DataError: The file is missing, damaged or holds something else.

    Example:
        >>> import tempfile
        >>> digits = np.zeros((12_000, 28, 28), np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "mnist.npz"
        ...     labels = np.zeros(12_000, np.uint8)
        ...     np.savez(path, x_train=digits, y_train=labels, x_test=digits, y_test=labels)
        ...     image, label = RotatedMnist(path, "train", limit=3)[0]
        >>> image.shape, label
        (torch.Size([1, 29, 29]), tensor(0))
    """

    def __init__(self, path: str | Path, split: str, *, size: int = 29, limit: int | None = None) -> None:
        _check_arguments(split, size, limit)
        digits, labels = _read(Path(path), "test" if split == "test" else "train")
        count = min(ROTATED_MNIST_COUNTS[split], len(digits) - _STARTS[split])
        count = count if limit is None else min(limit, count)
        own = slice(_STARTS[split], _STARTS[split] + count)
        generator = torch.Generator().manual_seed(list(ROTATED_MNIST_COUNTS).index(split))
        angles = 2 * torch.pi * torch.rand(ROTATED_MNIST_COUNTS[split], generator=generator)[:count]
        self.size = size
        self.labels = torch.from_numpy(labels[own].astype(np.int64))
        self._images = torch.cat(
            [
                _turn(torch.from_numpy(batch), turns, size)
                for batch, turns in zip(
                    np.split(digits[own], range(_BATCH, count, _BATCH)), angles.split(_BATCH), strict=True
                )
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not -len(self) <= index < len(self):
            # Python's own protocol of iteration ends at an IndexError.
            raise IndexError(f"`index`: received {index}; expected -{len(self)} <= index < {len(self)}")
        return self._images[index].float() / 255, self.labels[index]


def check_mnist(path: str | Path) -> dict[str, int]:
    """Return the number of images of each split.

    Raises:
        DataError: The file is missing, damaged or holds something else.
    """
    counts = {kind: len(_read(Path(path), kind)[1]) for kind in ("train", "test")}
    return {
        split: min(count, counts["test" if split == "test" else "train"] - _STARTS[split])
        for split, count in ROTATED_MNIST_COUNTS.items()
    }


def _turn(digits: torch.Tensor, angles: torch.Tensor, size: int) -> torch.Tensor:
    """Return the digits, (n, 28, 28) uint8, turned counter-clockwise into (n, 1, size, size) uint8."""
    cosines, sines = torch.cos(angles), torch.sin(angles)
    # The output grid, in units of half the input's side, so that pixels keep their size.
    scale = size / _SHAPE[0]
    rows = [torch.stack([cosines, -sines], 1), torch.stack([sines, cosines], 1)]
    turns = torch.cat([scale * torch.stack(rows, 1), torch.zeros(len(angles), 2, 1)], 2)  # [n, 2, 3]
    grid = F.affine_grid(turns, [len(angles), 1, size, size], align_corners=False)
    turned = F.grid_sample(digits[:, None].float(), grid, mode="bilinear", align_corners=False)
    return turned.round().clamp(0, 255).to(torch.uint8)


def _read(path: Path, kind: str) -> tuple[np.ndarray, np.ndarray]:
    expected = (
        f"a numpy archive with `x_{kind}`, uint8 of shape (n, 28, 28), and `y_{kind}`, digits of shape (n,)"
    )
    remedy = "Give MNIST as one .npz file of `x_train`, `y_train`, `x_test` and `y_test`."
    try:
        # numpy leaves a file open that it opened itself and can't read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            digits, labels = archive[f"x_{kind}"], archive[f"y_{kind}"]
    except FileNotFoundError as error:
        raise data_error(path, received="no such file", expected=expected, remedy=remedy) from error
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, BadZipFile) as error:
        received = f"a file that is none, or lacks one of them ({type(error).__name__})"
        raise data_error(path, received=received, expected=expected, remedy=remedy) from error
    smallest = 1 if kind == "test" else _STARTS["valid"] + 1
    is_fit = (
        digits.dtype == np.uint8
        and digits.shape[1:] == _SHAPE
        and labels.shape == digits.shape[:1]
        and np.issubdtype(labels.dtype, np.integer)
        and len(labels) >= smallest
        and 0 <= labels.min() <= labels.max() <= 9
    )
    if not is_fit:
        received = (
            f"`x_{kind}` of {digits.dtype} {digits.shape} and `y_{kind}` of {labels.dtype} {labels.shape}"
        )
        if len(labels) < smallest:
            expected += f", at least {smallest} of them"
        raise data_error(path, received=received, expected=expected, remedy=remedy)
    return digits, labels


def _check_arguments(split: str, size: int, limit: int | None) -> None:
    if split not in ROTATED_MNIST_COUNTS:
        raise InvalidArgumentError(
            "split",
            received=repr(split),
            expected=f"one of {', '.join(map(repr, ROTATED_MNIST_COUNTS))}",
            remedy="Call the validation set 'valid'.",
        )
    if size < _SMALLEST or size % 2 == 0:
        raise InvalidArgumentError(
            "size",
            received=size,
            expected="an odd number of at least 29",
            remedy="Try 33.",
        )
    if limit is not None and limit < 1:
        raise InvalidArgumentError(
            "limit",
            received=limit,
            expected="a positive number of samples, or None",
            remedy="Leave it out to take the whole split.",
        )
