"""The layout of PatchCamelyon's files: names, keys and shapes, and the check of a file against them.

Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", 2018; https://github.com/basveeling/pcam.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from eq_aimet.arguments import check_choice, check_path
from eq_aimet.experiments.data.hdf5_reader import DOWNLOAD, open_hdf5, read_samples, reading, samples_of
from eq_aimet.experiments.data.unpack import unpack
from eq_aimet.files import data_error

__all__ = [
    "IMAGE_SHAPE",
    "LABEL_SHAPE",
    "SPLITS",
    "SplitFiles",
    "check_images",
    "check_labels",
    "check_split",
    "file_name",
    "split_samples",
]

SPLITS = ("train", "valid", "test")
IMAGE_SHAPE = (96, 96, 3)
LABEL_SHAPE = (1, 1, 1)

_KEYS = {"x": "images", "y": "labels"}


@dataclass(frozen=True)
class SplitFiles:
    """The two checked files of a split.

    Attributes:
        split: "train", "valid" or "test".
        images: The HDF5 file with the images under `x`, uint8, shape (count, 96, 96, 3).
        labels: The HDF5 file with the labels under `y`, uint8, shape (count, 1, 1, 1), each 0 or 1.
        count: The number of samples in the split.
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

    The function reads all labels and no image. It first unpacks gzipped files into the cache folder.

    Args:
        folder: The folder of the split's files, `.h5` or `.h5.gz`.
        split: "train", "valid" or "test".
        cache_dir: The folder for unpacked copies of gzipped files; by default the user's cache folder.
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
    check_choice("split", split, SPLITS, remedy="PCam calls its validation set 'valid'.")
    folder = check_path("folder", folder)
    cache = None if cache_dir is None else check_path("cache_dir", cache_dir)
    if not folder.is_dir():
        raise data_error(
            folder,
            received="a file" if folder.exists() else "no such folder",
            expected="the folder of PCam's files",
            remedy="Check the path, or write a synthetic set there with `write_synthetic_pcam`.",
        )
    # Both files are looked up first, since unpacking one of them takes minutes.
    found = {key: _find(folder, split, key) for key in _KEYS}
    # `unpack` removes a copy that the check refuses.
    checks = {"x": check_images, "y": check_labels}
    paths = {
        key: unpack(path, cache, check=checks[key], progress=progress) if path.suffix == ".gz" else path
        for key, path in found.items()
    }
    image_count, label_count = (checks[key](paths[key]) for key in ("x", "y"))
    if image_count != label_count:
        raise data_error(
            found["y"],
            received=f"{label_count} labels",
            expected=f"{image_count} labels, one for each image of `{found['x'].name}`",
            remedy="The two files belong to different data sets: take both from the same data set.",
        )
    return SplitFiles(split, paths["x"], paths["y"], image_count)


def _find(folder: Path, split: str, key: str) -> Path:
    plain = folder / file_name(split, key)
    packed = plain.with_name(f"{plain.name}.gz")
    for path in (plain, packed):
        if path.is_file():
            return path
    remedy = (
        "Download it from https://github.com/basveeling/pcam, keeping its name, "
        "or write a synthetic set with `write_synthetic_pcam`."
    )
    archive = folder / f"{split}.npz"
    if archive.is_file():
        remedy = (
            f"`{archive.name}` is a packed archive, which eq_aimet does not read. Unpack it to HDF5 files "
            f"first; if an `unpack.py` came with it, by `python {folder / 'unpack.py'} OUT`."
        )
    raise data_error(
        folder,
        received=f"no file with the {_KEYS[key]} of the split {split!r}",
        expected=f"`{plain.name}` or `{packed.name}`",
        remedy=remedy,
    )


def check_images(path: Path) -> int:
    """Return the number of images of a file, without reading an image.

    Raises:
        DataError: The file is damaged or not in PCam's layout.
    """
    with open_hdf5(path) as file:
        return len(split_samples(file, path, "x"))


def check_labels(path: Path) -> int:
    """Return the number of labels of a file after reading them all.

    Raises:
        DataError: The file is damaged or not in PCam's layout, or a label is neither 0 nor 1.
    """
    with open_hdf5(path) as file:
        labels = split_samples(file, path, "y")
        found = np.unique(read_samples(labels, path, 0, len(labels)))
        if not np.isin(found, (0, 1)).all():
            shown = ", ".join(str(value) for value in found[:5]) + (", ..." if len(found) > 5 else "")
            raise data_error(
                path,
                received=f"the labels {shown}",
                expected="labels 0 and 1 only",
                remedy="PCam's labels are binary: 1 if the central 32x32 pixels have tumour tissue in them.",
            )
        return len(labels)


def split_samples(file: h5py.File, path: Path, key: str) -> h5py.Dataset:
    """Return the images (`x`) or the labels (`y`) of an open file.

    Raises:
        DataError: The file has no data set of that key, or `samples_of` refuses the data set.
    """
    samples = samples_of(file, path, key, {"x": IMAGE_SHAPE, "y": LABEL_SHAPE}[key])
    if samples is not None:
        return samples
    with reading(path):
        other = next((name for name in _KEYS if name != key and file.id.links.exists(name.encode())), None)
        names = sorted(itertools.islice(file, 5))
    remedy = DOWNLOAD
    if other is not None:
        remedy = f"It seems to hold the {_KEYS[other]}: check that the files' names are not swapped."
    raise data_error(
        path,
        received=f"the keys {names}",
        expected=f"a data set {key!r} with the {_KEYS[key]}",
        remedy=remedy,
    )
