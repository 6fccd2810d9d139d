"""New HDF5 files whose failing writes end in an ordinary error."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

__all__ = ["new_hdf5"]


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yield a new HDF5 file open for writing, and a function that raises if a write has failed so far.

    HDF5 can't close a file whose last blocks it could not write, on a full disk for instance, and then
    crashes the process. So it writes through Python here, and never hears of a failure. The caller asks for
    failures from time to time; at the end of the block they are asked for once more.

    Args:
        path: Where to write; there is no file yet.

    Yields:
        The file, and the function that raises the `OSError` of the first failed write, if there was one.
    """
    with open(path, "x+b", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()


class _Sink:
    """A file for h5py's `fileobj` driver that keeps the first failure and drops all writing after it."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, block: bytes) -> int:
        view = memoryview(block).cast("B")
        size = len(view)
        try:
            while self._failure is None and view:
                view = view[self._raw.write(view) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int) -> int:
        try:
            self._raw.truncate(size)
        except OSError as error:
            self._failure = self._failure or error
        return size

    def read(self, size: int = -1) -> bytes:
        return self._raw.read(size)

    def readinto(self, block: bytearray) -> int:
        return self._raw.readinto(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def flush(self) -> None:
        """Do nothing, as the file is not buffered."""
