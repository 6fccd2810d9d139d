"""HDF5 files of other people: reading never opens another file, and needs no more memory than the data.

An HDF5 file can make its reader open other files: by external and soft links, by external raw storage and by
virtual data sets. It can also claim any size, and hide any number of bytes in a compressed chunk. This module
refuses each of these files before it reads a value.
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

MOST_SAMPLES = 100_000_000  # the labels of so many samples take 100 MB
_LARGEST_CHUNK = 256 << 20  # bytes; HDF5 loads a whole chunk
_MOST_EXPANSION = 1032  # deflate makes at most so many bytes of one byte
_SMALL = 1 << 20  # bytes; each file may claim so many
_UNSUSPICIOUS = 64 << 20  # bytes; a chunk that can't expand further is not examined
# The filters that come with HDF5 and h5py; any other filter would load a library.
_FILTERS = {
    h5py.h5z.FILTER_DEFLATE: "deflate",
    h5py.h5z.FILTER_SHUFFLE: "shuffle",
    h5py.h5z.FILTER_FLETCHER32: "fletcher32",
    h5py.h5z.FILTER_LZF: "lzf",
}
_STORAGE_REMEDY = "Copy it by `h5py.File(new, 'w')['x'] = values`, with the values in the file itself."


@contextmanager
def reading(path: Path, received: str = "a truncated or damaged HDF5 file") -> Iterator[None]:
    """Turn each error that h5py raises in the block into one `DataError`."""
    try:
        yield
    except DataError:
        raise
    except READING_ERRORS as error:
        raise data_error(
            path, received=f"{received} ({reason(error)})", expected="a whole HDF5 file", remedy=DOWNLOAD
        ) from error


def open_hdf5(path: Path, **options: Any) -> h5py.File:
    """Return the file, open for reading; the caller closes it.

    Args:
        path: The file.
        **options: Options of `h5py.File`.

    Raises:
        DataError: The file can't be read, it is truncated, or it is not an HDF5 file.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is not a regular file")
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
    """Return the data set of uint8 samples of that key at the file's top level, or None if it is missing.

    Args:
        file: The open file.
        path: Its path, for error messages.
        key: The name of the data set.
        sample_shape: The shape of a sample.

    Raises:
        DataError: The data set has another shape or type, it is too large, or its values lie outside of the
            file.
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
        start: The index of the first sample.
        stop: The index after the last sample.

    Raises:
        DataError: The samples are damaged, or a compressed chunk expands beyond its declared size.
    """
    with reading(path, f"damaged data in `{dataset.name}` from index {start} on"):
        _check_length(dataset, path, stop - start)
        _check_chunks(dataset, path, start, stop)
        values: np.ndarray[Any, Any] = dataset[start:stop]
        return values


def read_attribute(file: h5py.File, path: Path, name: str) -> object:
    """Return an attribute of the file if it is one integer or one text, else None."""
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
        expected = f"only the filters {', '.join(_FILTERS.values())}, each at most once"
        remedy = 'Write the data set again with `compression="gzip"`.'
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
    """Raise if the samples need more memory than the file's bytes can expand to."""
    wanted, stored = count * int(np.prod(dataset.shape[1:])), path.stat().st_size
    if wanted > max(_MOST_EXPANSION * stored, _SMALL):
        raise data_error(
            path,
            received=f"{count:,} samples, {wanted:,} bytes, in a file of {stored:,} bytes",
            expected=f"at most {_MOST_EXPANSION} bytes for a byte of the file",
            remedy=DOWNLOAD,
        )


def _check_chunks(dataset: h5py.Dataset, path: Path, start: int, stop: int) -> None:
    """Raise if a compressed chunk of these samples expands beyond the declared size of a chunk."""
    if dataset.chunks is None or dataset.compression is None:
        return
    size = int(np.prod(dataset.chunks))
    most = size + size // 8 + 1024  # deflate makes random bytes a little larger
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
