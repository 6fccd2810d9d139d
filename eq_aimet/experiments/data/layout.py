"""PatchCamelyon's files: their names, keys and shapes, and the checks that files follow them.

Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", 2018; https://github.com/basveeling/pcam.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data.unpack import unpack
from eq_aimet.files import data_error

__all__ = ["IMAGE_SHAPE", "LABEL_SHAPE", "SPLITS", "SplitFiles", "check_split", "file_name", "open_hdf5"]

SPLITS = ("train", "valid", "test")
IMAGE_SHAPE = (96, 96, 3)
LABEL_SHAPE = (1, 1, 1)

_KEYS = {"x": "images", "y": "labels"}
_DOWNLOAD = "Download it again from https://github.com/basveeling/pcam."


@dataclass(frozen=True)
class SplitFiles:
    """The two checked files of a split.

    Attributes:
        split: "train", "valid" or "test".
        images: The HDF5 file with the images under `x`, uint8, shape (count, 96, 96, 3).
        labels: The HDF5 file with the labels under `y`, uint8, shape (count, 1, 1, 1), each 0 or 1.
        count: How many samples the split has.
    """

    split: str
    images: Path
    labels: Path
    count: int


def file_name(split: str, key: str) -> str:
    """Return the name of a split's file with the images (`x`) or the labels (`y`).

    Example:
        >>> file_name("train", "x")
        'camelyonpatch_level_2_split_train_x.h5'
    """
    return f"camelyonpatch_level_2_split_{split}_{key}.h5"


def check_split(
    folder: str | Path, split: str, *, cache_dir: str | Path | None = None, progress: bool = True
) -> SplitFiles:
    """Return a split's files after checking that they follow PCam's layout.

    The labels are read as a whole, the images not at all. Files that are still gzipped are unpacked first,
    into the cache folder.

    Args:
        folder: Where the split's files lie, as `.h5` or as `.h5.gz`.
        split: "train", "valid" or "test".
        cache_dir: Where gzipped files are unpacked to; by default the user's cache folder.
        progress: Whether unpacking shows a progress bar.

    Returns:
        The files' paths and the number of samples.

    Raises:
        InvalidArgumentError: There is no such split.
        DataError: A file is missing, damaged or not in PCam's layout.

    Example:
        >>> check_split("no_such_folder", "train")
        Traceback (most recent call last):
            ...
        eq_aimet.errors.DataError: `no_such_folder`: received no such folder; expected ...
    """
    if split not in SPLITS:
        raise InvalidArgumentError(
            "split",
            received=repr(split),
            expected=f"one of {', '.join(map(repr, SPLITS))}",
            remedy="PCam calls its validation set 'valid'.",
        )
    folder = Path(folder)
    if not folder.is_dir():
        raise data_error(
            folder,
            received="a file" if folder.exists() else "no such folder",
            expected="the folder of PCam's files",
            remedy="Check the path, or write a synthetic set there with `write_synthetic_pcam`.",
        )
    cache = None if cache_dir is None else Path(cache_dir)
    # Both are looked up before either is unpacked, which takes minutes.
    found = {key: _find(folder, split, key) for key in _KEYS}
    paths = {
        key: unpack(path, cache, progress=progress) if path.suffix == ".gz" else path
        for key, path in found.items()
    }
    image_count = _check_images(paths["x"])
    label_count = _check_labels(paths["y"])
    if image_count != label_count:
        raise data_error(
            found["y"],
            received=f"{label_count} labels",
            expected=f"{image_count} labels, one for each image of `{found['x'].name}`",
            remedy="The two files belong to different sets; take both from the same one.",
        )
    return SplitFiles(split, paths["x"], paths["y"], image_count)


def open_hdf5(path: Path, **options: Any) -> h5py.File:
    """Return the file opened for reading, for the caller to close.

    Raises:
        DataError: The file can't be read, is truncated, or is no HDF5 file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise data_error(
            path,
            received=f"a file that can't be read ({error.strerror})",
            expected="a readable HDF5 file",
            remedy="Check the path and its permissions.",
        ) from error
    if not h5py.is_hdf5(path):
        remedy = _DOWNLOAD
        if start.startswith(b"\x1f\x8b"):
            remedy = f"It is a gzip file: rename it to `{path.name}.gz`."
        received = f"a file that starts with {start!r}" if start else "an empty file"
        raise data_error(path, received=received, expected="an HDF5 file", remedy=remedy)
    try:
        return h5py.File(path, "r", **options)
    except OSError as error:
        raise data_error(
            path,
            received=f"a truncated or damaged HDF5 file ({error})",
            expected="a whole HDF5 file",
            remedy=_DOWNLOAD,
        ) from error


def _find(folder: Path, split: str, key: str) -> Path:
    plain = folder / file_name(split, key)
    packed = plain.with_name(f"{plain.name}.gz")
    for path in (plain, packed):
        if path.is_file():
            return path
    raise data_error(
        folder,
        received=f"no file with the {_KEYS[key]} of the split {split!r}",
        expected=f"`{plain.name}` or `{packed.name}`",
        remedy="Download it from https://github.com/basveeling/pcam, keeping its name, "
        "or write a synthetic set with `write_synthetic_pcam`.",
    )


def _check_images(path: Path) -> int:
    with open_hdf5(path) as file:
        return len(_dataset(file, path, "x", IMAGE_SHAPE))


def _check_labels(path: Path) -> int:
    with open_hdf5(path) as file:
        labels = _dataset(file, path, "y", LABEL_SHAPE)
        found = np.unique(labels[:])
        if not np.isin(found, (0, 1)).all():
            shown = ", ".join(str(value) for value in found[:5]) + (", ..." if len(found) > 5 else "")
            raise data_error(
                path,
                received=f"the labels {shown}",
                expected="labels 0 and 1 only",
                remedy="PCam's labels are binary: 1 if the central 32x32 pixels have tumour tissue in them.",
            )
        return len(labels)


def _dataset(file: h5py.File, path: Path, key: str, sample_shape: tuple[int, ...]) -> h5py.Dataset:
    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        other = next((name for name in _KEYS if name != key and name in file), None)
        remedy = _DOWNLOAD
        if other is not None:
            remedy = f"It seems to hold the {_KEYS[other]}: check that the files' names are not swapped."
        raise data_error(
            path,
            received=f"the keys {sorted(file)}",
            expected=f"a data set {key!r} with the {_KEYS[key]}",
            remedy=remedy,
        )
    if dataset.shape[1:] != sample_shape or dataset.dtype != np.uint8:
        shape = ", ".join(map(str, sample_shape))
        raise data_error(
            path,
            received=f"{key!r} of shape {dataset.shape} and dtype {dataset.dtype}",
            expected=f"shape (n, {shape}) and dtype uint8",
            remedy="Convert it to PCam's layout.",
        )
    if not len(dataset):
        raise data_error(
            path,
            received=f"{key!r} without a sample",
            expected="at least one sample",
            remedy=_DOWNLOAD,
        )
    return dataset
