"""A synthetic data set in PCam's layout, for tests, demonstrations and machines without PCam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eq_aimet.arguments import check_integer, check_path
from eq_aimet.errors import DataError
from eq_aimet.experiments.data.hdf5_reader import MOST_SAMPLES, open_hdf5, read_attribute
from eq_aimet.experiments.data.hdf5_writer import new_hdf5
from eq_aimet.experiments.data.layout import IMAGE_SHAPE, LABEL_SHAPE, SPLITS, file_name
from eq_aimet.experiments.data.progress import progress_bar
from eq_aimet.experiments.data.tissue import synthetic_patch
from eq_aimet.files import data_error, make_folder, whole_files

__all__ = ["write_synthetic_pcam"]

_GENERATOR = "eq_aimet.data.synthetic_patch"  # written into the files; it stays although the module has moved
_VERSION = 1  # raise it whenever the same seed gives other patches
_BATCH = 64


def write_synthetic_pcam(
    folder: str | Path,
    *,
    train: int = 4096,
    valid: int = 1024,
    test: int = 1024,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Return the folder after writing a synthetic data set of stained tissue into it, in PCam's layout.

    A patch has label 1 if a tumour nucleus (large, irregular, with nucleoli) has its centre in the central
    32x32 pixels. Tumour nuclei outside the central square are equally frequent for both labels. Both labels
    are equally frequent, and turns by 90° and reflections do not change the distribution. The i-th patch of a
    split depends only on the seed, the split and i, and not on the sizes of the splits.

    If the folder already holds a split of the same seed and size, the split stays as it is. All missing files
    appear together at the end. After an error no new file appears.

    Args:
        folder: The folder to write into; it is made if it is missing.
        train: The number of training samples.
        valid: The number of validation samples.
        test: The number of test samples.
        seed: The seed of all random choices, not negative.
        progress: Whether to show the progress.

    Returns:
        The folder.

    Raises:
        InvalidArgumentError: A size is below 1, or the seed is negative.
        DataError: The folder holds other data under these names, or can't be written to, for example because
            the disk is full.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_synthetic_pcam(folder, train=4, valid=2, test=2, progress=False)
        ...     len(list(path.glob("camelyonpatch_level_2_split_*.h5")))
        6
    """
    counts = dict(zip(SPLITS, (train, valid, test), strict=True))
    for split, count in counts.items():
        check_integer(split, count, most=MOST_SAMPLES, remedy="Each split needs a sample.")
    check_integer("seed", seed, least=0, remedy="Take another seed.")
    folder = check_path("folder", folder)
    make_folder(folder, purpose="a folder to write into")
    wanted = {split: _parameters(seed, split, count) for split, count in counts.items()}
    missing = [split for split in SPLITS if not _is_written(folder, split, wanted[split])]
    if not missing:
        return folder
    targets = [folder / file_name(split, key) for split in missing for key in ("x", "y")]
    bar_context = progress_bar(
        total=sum(counts[split] for split in missing), title="drawing patches", shown=progress, unit="patch"
    )
    with bar_context as bar, whole_files(targets) as partial:
        for split, images, labels in zip(missing, partial[::2], partial[1::2], strict=True):
            _write_split(images, labels, wanted[split], bar)
    return folder


def _parameters(seed: int, split: str, count: int) -> dict[str, Any]:
    """Return the parameters that decide a split's contents, as the files' attributes hold them."""
    return {"generator": _GENERATOR, "version": _VERSION, "seed": seed, "split": split, "count": count}


def _is_written(folder: Path, split: str, wanted: dict[str, Any]) -> bool:
    """Return whether the folder holds both files of a split with the wanted parameters.

    Raises:
        DataError: The folder holds other files under these names.
    """
    present = 0
    for key in ("x", "y"):
        path = folder / file_name(split, key)
        packed = path.with_name(f"{path.name}.gz")
        if packed.exists():
            raise _occupied(packed, "a gzipped file", wanted)
        if not path.exists():
            continue
        with open_hdf5(path) as file:
            values = {name: read_attribute(file, path, name) for name in wanted}
        found = {name: value for name, value in values.items() if value is not None}
        if found.get("generator") != _GENERATOR:
            raise _occupied(path, "data that this function has not written", wanted)
        if found != wanted:
            raise _occupied(path, f"a synthetic set of {_describe(found)}", wanted)
        present += 1
    return present == 2


def _occupied(path: Path, received: str, wanted: dict[str, Any]) -> DataError:
    return data_error(
        path,
        received=received,
        expected=f"no such file, or a synthetic set of {_describe(wanted)}",
        remedy="Existing data is never overwritten: choose another folder or remove the file yourself.",
    )


def _describe(parameters: dict[str, Any]) -> str:
    names = ("version", "seed", "count")
    return ", ".join(f"{name} {parameters[name]}" for name in names if name in parameters)


def _write_split(images_path: Path, labels_path: Path, parameters: dict[str, Any], bar: Any) -> None:
    count, seed = parameters["count"], parameters["seed"]
    split = SPLITS.index(parameters["split"])
    labels = np.empty((count, *LABEL_SHAPE), np.uint8)
    with new_hdf5(images_path) as (file, check_written):
        file.attrs.update(parameters)
        # One image in each chunk: reading one image never unpacks another.
        images = file.create_dataset(
            "x",
            (count, *IMAGE_SHAPE),
            np.uint8,
            chunks=(1, *IMAGE_SHAPE),
            compression="gzip",
            compression_opts=1,
        )
        for start in range(0, count, _BATCH):
            patches = [
                synthetic_patch(seed, split, index) for index in range(start, min(start + _BATCH, count))
            ]
            images[start : start + len(patches)] = np.stack([patch.image for patch in patches])
            labels[start : start + len(patches), 0, 0, 0] = [patch.label for patch in patches]
            file.flush()
            check_written()
            if bar is not None:
                bar.update(len(patches))
    with new_hdf5(labels_path) as (file, _):
        file.attrs.update(parameters)
        file["y"] = labels
