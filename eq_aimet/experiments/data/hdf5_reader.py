"""HDF5 files of other people, read without leaving the file and without more memory than the data need.

An HDF5 file can make its reader open other files: by external and soft links, by external raw storage and by
virtual data sets. It can also claim any size, and hide any number of bytes in a compressed chunk. All of this
is refused before a value is read.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eq_aimet.errors import DataError
from eq_aimet.experiments.foreign_files import READING_ERRORS, reason
from eq_aimet.files import data_error

__all__ = ["DOWNLOAD", "MOST_SAMPLES", "open_hdf5", "read_attribute", "read_samples", "reading", "samples_of"]

DOWNLOAD = "Download it again from https://github.com/basveeling/pcam."

MOST_SAMPLES = 100_000_000  # whose labels take 100 MB
_LARGEST_CHUNK = 256 << 20  # bytes; HDF5 holds a chunk as a whole
_MOST_EXPANSION = 1032  # what deflate can make of a byte
_SMALL = 1 << 20  # bytes that any file may claim
_UNSUSPICIOUS = 64 << 20  # bytes that a chunk may expand to without a look into it
# HDF5's own filters that it computes without a library from elsewhere, and h5py's.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "deflate",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
_STORAGE_REMEDY = "Copy it by `h5py.File(new, 'w')['x'] = values`, with the values in the file itself."


@contextmanager
def reading(path: Path, received: str = "a truncated or damaged HDF5 file") -> Iterator[None]:
    """Turn whatever h5py raises while the block reads into one `DataError`."""
    try:
        yield
    except DataError:
        raise
    except READING_ERRORS as error:
        raise data_error(
            path, received=f"{received} ({reason(error)})", expected="a whole HDF5 file", remedy=DOWNLOAD
        ) from error


def open_hdf5(path: Path, **options: Any) -> h5py.File:
    """Return the file opened for reading, for the caller to close.

    Args:
        path: The file.
        **options: Options of `h5py.File`.

    Raises:
        DataError: The file can't be read, is truncated, or is no HDF5 file.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no regular file")
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
        remedy = DOWNLOAD
        if start.startswith(b"\x1f\x8b"):
            remedy = f"It is a gzip file: rename it to `{path.name}.gz`."
        received = f"a file that starts with {start!r}" if start else "an empty file"
        raise data_error(path, received=received, expected="an HDF5 file", remedy=remedy)
    with reading(path):
        return h5py.File(path, "r", **options)


def samples_of(file: h5py.File, path: Path, key: str, sample_shape: tuple[int, ...]) -> h5py.Dataset | None:
    """Return the data set of uint8 samples under a key of the file's top level, or None if there is none.

    Args:
        file: The open file.
        path: Its path, for error messages.
        key: The name of the data set.
        sample_shape: The shape of a sample.

    Raises:
        DataError: The data set has another shape or type, is stored outside of the file, or is too large.
    """
    with reading(path):
        if not file.id.links.exists(key.encode()):
            return None
        if file.id.links.get_info(key.encode()).type != h5py.h5l.TYPE_HARD:
            raise data_error(
                path,
                received=f"{key!r} as a link to another place or another file",
                expected="the values in the file itself",
                remedy=_STORAGE_REMEDY,
            )
        dataset = file[key]
        if not isinstance(dataset, h5py.Dataset):
            return None
        _check_storage(dataset, path, key)
        _check_shape(dataset, path, key, sample_shape)
        _check_size(dataset, path, key)
        return dataset


def read_samples(dataset: h5py.Dataset, path: Path, start: int, stop: int) -> np.ndarray[Any, Any]:
    """Return the samples from `start` to before `stop`.

    Args:
        dataset: A data set that `samples_of` returned.
        path: The path of its file, for error messages.
        start: The first sample.
        stop: The end, not included.

    Raises:
        DataError: The samples are damaged, or a compressed chunk expands to more bytes than it stands for.
    """
    with reading(path, f"damaged data in `{dataset.name}` from index {start} on"):
        _check_length(dataset, path, stop - start)
        _check_chunks(dataset, path, start, stop)
        values: np.ndarray[Any, Any] = dataset[start:stop]
        return values


def read_attribute(file: h5py.File, path: Path, name: str) -> object:
    """Return an attribute of the file that is a single integer or a single text, or None."""
    with reading(path):
        if name not in file.attrs:
            return None
        attribute = file.attrs.get_id(name)
        is_text = h5py.check_string_dtype(attribute.dtype) is not None
        if attribute.shape != () or not (is_text or attribute.dtype.kind in "iu"):
            return None
        value = file.attrs[name]
        return str(value) if is_text else int(value)


def _check_storage(dataset: h5py.Dataset, path: Path, key: str) -> None:
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    expected, remedy = "the values in the file itself", _STORAGE_REMEDY
    if plan.get_external_count():
        received = f"{key!r} with its values in other files (external storage)"
    elif plan.get_layout() == h5py.h5d.VIRTUAL:
        received = f"{key!r} with its values in other data sets (a virtual data set)"
    elif len(set(filters)) < len(filters) or not set(filters) <= _FILTERS.keys():
        names = ", ".join(_FILTERS.get(number, f"number {number}") for number in filters)
        received = f"{key!r} with the filters {names}"
        expected = f"no other filter than {', '.join(_FILTERS.values())}, and no filter twice"
        remedy = 'Write it anew with `compression="gzip"`.'
    else:
        return
    raise data_error(path, received=received, expected=expected, remedy=remedy)


def _check_shape(dataset: h5py.Dataset, path: Path, key: str, sample_shape: tuple[int, ...]) -> None:
    shape = dataset.shape
    if shape is not None and shape[1:] == sample_shape and dataset.dtype == np.uint8:
        return
    remedy = "Convert it to PCam's layout."
    if shape is not None and len(shape) == 4 and shape[3] == sample_shape[2] == 3:
        remedy = f"Crop or resize the patches to {sample_shape[0]}×{sample_shape[1]} pixels, as uint8."
    raise data_error(
        path,
        received=f"{key!r} of shape {shape} and dtype {dataset.dtype}",
        expected=f"shape (n, {', '.join(map(str, sample_shape))}) and dtype uint8",
        remedy=remedy,
    )


def _check_size(dataset: h5py.Dataset, path: Path, key: str) -> None:
    chunk = int(np.prod(dataset.chunks or (0,), dtype=object))
    if not len(dataset):
        received, expected = f"{key!r} without a sample", "at least one sample"
    elif len(dataset) > MOST_SAMPLES:
        received, expected = f"{key!r} of {len(dataset):,} samples", f"at most {MOST_SAMPLES:,}"
    elif chunk > _LARGEST_CHUNK:
        received, expected = f"{key!r} in chunks of {chunk:,} bytes", f"at most {_LARGEST_CHUNK:,} bytes"
    else:
        return
    raise data_error(path, received=received, expected=expected, remedy=DOWNLOAD)


def _check_length(dataset: h5py.Dataset, path: Path, count: int) -> None:
    """Raise if so many samples take more memory than the file's bytes can stand for."""
    wanted, stored = count * int(np.prod(dataset.shape[1:])), path.stat().st_size
    if wanted > max(_MOST_EXPANSION * stored, _SMALL):
        raise data_error(
            path,
            received=f"{count:,} samples, {wanted:,} bytes, in a file of {stored:,} bytes",
            expected=f"at most {_MOST_EXPANSION} bytes for a byte of the file",
            remedy=DOWNLOAD,
        )


def _check_chunks(dataset: h5py.Dataset, path: Path, start: int, stop: int) -> None:
    """Raise if a compressed chunk of these samples holds more bytes than the chunk stands for."""
    if dataset.chunks is None or dataset.compression is None:
        return
    size = int(np.prod(dataset.chunks))
    most = size + size // 8 + 1024  # what a chunk that can't be compressed takes
    first = start - start % dataset.chunks[0]
    starts = [range(first, stop, dataset.chunks[0])]
    starts += [
        range(0, length, step) for length, step in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
    ]
    for corner in itertools.product(*starts):
        info = dataset.id.get_chunk_info_by_coord(corner)
        held = info.size
        is_suspicious = held * _MOST_EXPANSION > max(size, _UNSUSPICIOUS)
        if dataset.compression == "gzip" and held <= most and is_suspicious:
            skipped, content = dataset.id.read_direct_chunk(corner)
            held = held if skipped else len(zlib.decompressobj().decompress(content, most + 1))
        if held > most:
            raise data_error(
                path,
                received=f"a chunk at {corner} that holds more than its {size:,} bytes",
                expected="chunks of the size that the file declares",
                remedy="The file is damaged, or made to fill the memory. Get it from elsewhere.",
            )
