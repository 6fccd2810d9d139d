"""New HDF5 files; a failed write raises an ordinary error instead of ending the process."""

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

    On a full disk HDF5 can't close a file, and crashes the process. So HDF5 writes here through a Python
    object that hides failures from it and keeps the first one. The caller calls the function from time to
    time; it is called once more at the end of the block.

    Args:
        path: The path of the new file.

    Yields:
        The file, and a function that raises the `OSError` of the first failed write, if a write has failed.
    """
    with open(path, "x+b", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()


class _Sink:
    """A file for h5py's `fileobj` driver; after the first failure it keeps the error and writes nothing."""

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raise the error of the first failed write, if a write has failed."""
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
