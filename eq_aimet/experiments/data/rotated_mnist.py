"""Rotated MNIST: handwritten digits, each turned by its own angle.

After Larochelle et al., "An Empirical Evaluation of Deep Architectures on Problems with Many Factors of
Variation", 2007: 10,000 training images and 2,000 validation images out of MNIST's training set. The test
images are MNIST's test images.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from eq_aimet.arguments import check_choice, check_integer, check_path
from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.foreign_files import READING_ERRORS, reason
from eq_aimet.files import data_error

__all__ = ["ROTATED_MNIST_COUNTS", "RotatedMnist", "check_mnist"]

ROTATED_MNIST_COUNTS = {"train": 10_000, "valid": 2_000, "test": 10_000}
_SHAPE = (28, 28)
_SMALLEST, _LARGEST = 29, 1023  # pixels
_MOST_BYTES = 512 << 20  # of an array; MNIST's training images have 47 MB
_STARTS = {"train": 0, "valid": 10_000, "test": 0}
_BATCH = 500


class RotatedMnist(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The samples of one split: an image, float32, shape (1, size, size), and its digit, int64, 0 to 9.

    The angles are uniform over the circle. They depend only on the split, so the data are the same in each
    run. The constructor turns each digit once about its centre, by bilinear interpolation.

    Args:
        path: A numpy archive with `x_train`, (n, 28, 28) uint8, `y_train`, (n,), `x_test` and `y_test`.
        split: "train", "valid" or "test".
        size: The side of the images in pixels, odd and at least 29.
        limit: The largest number of samples to keep, from the first one on; by default all.

    Raises:
        InvalidArgumentError: The split, size or limit is not possible.
        DataError: The file is missing, it is damaged, or it lacks an array.

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
        digits, labels = _read(check_path("path", path), "test" if split == "test" else "train")
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
            # An IndexError ends a loop over the data set.
            raise IndexError(f"`index`: received {index}; expected -{len(self)} <= index < {len(self)}")
        return self._images[index].float() / 255, self.labels[index]


def check_mnist(path: str | Path) -> dict[str, int]:
    """Return the number of images of each split.

    Raises:
        DataError: The file is missing, it is damaged, or it lacks an array.
    """
    path = check_path("path", path)
    counts = {kind: len(_read(path, kind)[1]) for kind in ("train", "test")}
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


def _read(path: Path, kind: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the digits, (n, 28, 28) uint8, and the labels, (n,), of the training or the test images."""
    try:
        if path.exists() and not path.is_file():
            raise _UnfitError("a path that is not a file")
        with ZipFile(path) as archive:
            digits = _read_array(archive, f"x_{kind}", 3)
            labels = _read_array(archive, f"y_{kind}", 1)
        _check_arrays(digits, labels, kind)
    except FileNotFoundError as error:
        raise _mnist_error(path, "no such file", kind) from error
    except _UnfitError as error:
        raise _mnist_error(path, str(error), kind) from error
    except READING_ERRORS as error:
        received = f"a file that is not a .npz archive, or that is damaged ({reason(error)})"
        raise _mnist_error(path, received, kind) from error
    return digits, labels


class _UnfitError(Exception):
    """The archive does not hold MNIST; the text says why."""


def _read_array(archive: ZipFile, name: str, dimensions: int) -> np.ndarray[Any, Any]:
    """Return an array of the archive after comparing its header with its size; load no pickle."""
    member = f"{name}.npy"
    if member not in archive.namelist():
        raise _UnfitError(f"an archive without the array `{name}`")
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(member) as stream:
        shape, _, dtype = headers[np.lib.format.read_magic(stream)](stream)
        size = archive.getinfo(member).file_size - stream.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or len(shape) != dimensions or claimed != size or claimed > _MOST_BYTES:
        raise _UnfitError(f"`{name}` of {dtype} {shape} in {size:,} bytes")
    with archive.open(member) as stream:
        values: np.ndarray[Any, Any] = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # zipfile compares the checksum at the end of the stream
    return values


def _check_arrays(digits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], kind: str) -> None:
    is_fit = (
        digits.dtype == np.uint8
        and digits.shape[1:] == _SHAPE
        and labels.shape == digits.shape[:1]
        and np.issubdtype(labels.dtype, np.integer)
        and len(labels) >= _fewest(kind)
    )
    if not is_fit:
        raise _UnfitError(
            f"`x_{kind}` of {digits.dtype} {digits.shape} and `y_{kind}` of {labels.dtype} {labels.shape}"
        )
    if not 0 <= labels.min() <= labels.max() <= 9:
        raise _UnfitError(f"labels from {labels.min()} to {labels.max()} in `y_{kind}`")


def _fewest(kind: str) -> int:
    return 1 if kind == "test" else _STARTS["valid"] + 1


def _mnist_error(path: Path, received: str, kind: str) -> DataError:
    return data_error(
        path,
        received=received,
        expected=f"a numpy archive with `x_{kind}`, uint8 of shape (n, 28, 28), and `y_{kind}`, digits of "
        f"shape (n,), with n at least {_fewest(kind):,}",
        remedy="Give MNIST as one .npz file of `x_train`, `y_train`, `x_test` and `y_test`.",
    )


def _check_arguments(split: str, size: int, limit: int | None) -> None:
    check_choice("split", split, tuple(ROTATED_MNIST_COUNTS), remedy="Call the validation set 'valid'.")
    check_integer("size", size, least=_SMALLEST, most=_LARGEST, remedy="Try 33.")
    if size % 2 == 0:
        raise InvalidArgumentError(
            "size", received=size, expected=f"an odd number of at least {_SMALLEST}", remedy="Try 33."
        )
    if limit is not None:
        check_integer("limit", limit, remedy="Leave it out to take the whole split.")
