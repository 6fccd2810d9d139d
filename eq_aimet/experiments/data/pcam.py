"""PatchCamelyon, or any data set in its layout, as a torch data set that reads one sample at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from eq_aimet.arguments import check_flag, check_integer
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data.hdf5_reader import open_hdf5, read_samples
from eq_aimet.experiments.data.layout import IMAGE_SHAPE, check_split, split_samples

__all__ = ["PCamDataset"]

_SMALLEST_CROP = 33  # the central 32x32 square decides the label; 33 is the next odd number
_CHUNK_CACHE_BYTES = 8 << 20


class PCamDataset(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The samples of one split: an image, float32, shape (3, crop, crop), and its label, int64, 0 or 1.

    The constructor checks the files and reads the labels. It reads no image: `dataset[index]` reads one image
    from the file. So the memory does not grow with the number of images. Each process opens the file by
    itself at its first image, so `DataLoader` workers can share the data set.

    The images' values lie in [0, 1]: the values of the file divided by 255, without another normalization.

    Args:
        folder: The folder of the split's files, `.h5` or `.h5.gz`.
        split: "train", "valid" or "test".
        crop: The side of the crop, odd and within 33..95. It starts at row and column (96 - crop) // 2, so 95
            leaves out the last row and the last column.
        transform: A function that changes each image, for example `turn_and_flip`.
        limit: The largest number of samples to keep, from the first one on; by default all.
        cache_dir: The folder for unpacked copies of gzipped files; by default the user's cache folder.
        progress: Whether unpacking shows a progress bar.

    Raises:
        InvalidArgumentError: The split, crop or limit is not possible.
        DataError: A file is missing, damaged or not in PCam's layout.

    Example:
        >>> import tempfile
        >>> from eq_aimet.experiments.data import write_synthetic_pcam
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_synthetic_pcam(folder, train=2, valid=2, test=2, progress=False)
        ...     with PCamDataset(folder, "train") as dataset:
        ...         image, label = dataset[0]
        >>> image.shape, image.dtype, label.dtype
        (torch.Size([3, 95, 95]), torch.float32, torch.int64)
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        *,
        crop: int = 95,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        limit: int | None = None,
        cache_dir: str | Path | None = None,
        progress: bool = True,
    ) -> None:
        crop = _check_crop(crop)
        if limit is not None:
            limit = check_integer("limit", limit, remedy="Leave it out to take the whole split.")
        if transform is not None and not callable(transform):
            raise InvalidArgumentError(
                "transform",
                received=repr(transform),
                expected="a function of an image, or None",
                remedy="Try `turn_and_flip`.",
            )
        check_flag("progress", progress)
        self.files = check_split(folder, split, cache_dir=cache_dir, progress=progress)
        self.crop = crop
        self.transform = transform
        count = self.files.count if limit is None else min(limit, self.files.count)
        with open_hdf5(self.files.labels) as file:
            labels = split_samples(file, self.files.labels, "y")
            self._labels = read_samples(labels, self.files.labels, 0, count)[:, 0, 0, 0]
        self._handle: h5py.File | None = None
        self._handle_process: int | None = None
        self._samples: h5py.Dataset | None = None

    @property
    def labels(self) -> torch.Tensor:
        """All labels in the samples' order, int64, shape (samples,)."""
        return torch.from_numpy(self._labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        count = len(self)
        if not -count <= index < count:
            # Python's own protocol of iteration ends at an IndexError.
            raise IndexError(f"`index`: received {index}; expected -{count} <= index < {count}")
        index = int(index) % count
        start = (IMAGE_SHAPE[0] - self.crop) // 2
        window = slice(start, start + self.crop)
        pixels = read_samples(self._images(), self.files.images, index, index + 1)[0, window, window]
        # [crop, crop, 3] -> [3, crop, crop]
        image = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255).contiguous()
        if self.transform is not None:
            image = self.transform(image)
        return image, torch.tensor(int(self._labels[index]), dtype=torch.int64)

    def close(self) -> None:
        """Close this process' file handle, if one is open; the next image opens it again."""
        if self._handle is not None and self._handle_process == os.getpid():
            self._handle.close()
        self._handle = self._samples = None

    def __enter__(self) -> PCamDataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_handle_process": None, "_samples": None}

    def _images(self) -> h5py.Dataset:
        process = os.getpid()
        # A forked worker inherits its parent's handle, whose place in the file it would share.
        if self._handle is None or self._handle_process != process:
            self._handle = open_hdf5(self.files.images, rdcc_nbytes=_CHUNK_CACHE_BYTES)
            self._handle_process = process
            self._samples = split_samples(self._handle, self.files.images, "x")
        return self._samples


def _check_crop(crop: int) -> int:
    crop = check_integer("crop", crop, remedy="Try 95, or 47.")
    largest = IMAGE_SHAPE[0] - 1
    if crop % 2 and _SMALLEST_CROP <= crop <= largest:
        return crop
    remedy = f"The images have {IMAGE_SHAPE[0]} rows and columns, and the central 32 decide the label."
    if crop % 2 == 0 and _SMALLEST_CROP < crop <= IMAGE_SHAPE[0]:
        remedy = (
            f"Take {crop - 1}: a 3x3 convolution of stride 2 on an even grid samples off-centre, which "
            "breaks equivariance."
        )
    expected = f"an odd number from {_SMALLEST_CROP} to {largest}"
    raise InvalidArgumentError("crop", received=crop, expected=expected, remedy=remedy)
