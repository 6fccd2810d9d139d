"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from eq_aimet.errors import DataError

__all__ = ["data_error", "make_folder", "whole_files"]


def data_error(path: Path, *, received: str, expected: str, remedy: str) -> DataError:
    """Returns a `DataError` with the file or folder, what it is, what it should be, and the remedy."""
    return DataError(f"`{path}`: received {received}; expected {expected}. {remedy}")


def make_folder(path: Path, *, purpose: str, remedy: str = "Choose another one.") -> None:
    """Makes the folder where it is missing.

    Args:
        path: the folder.
        purpose: what it is for, "a folder to write into".
        remedy: what to do where it can't be made.

    Raises:
        DataError: it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        received = f"a folder that can't be made ({error.strerror})"
        raise data_error(path, received=received, expected=purpose, remedy=remedy) from error


@contextmanager
def whole_files(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Yields temporary paths to write to, which take the targets' names if the block ends without an error.

    The temporary files lie beside their targets. If the block raises, all of them are removed, and the
    targets are what they were before. If a renaming fails, the targets that this call had already created
    are removed too.

    Args:
        targets: the files to write; their folders exist.

    Yields:
        One path for each target, at which there is no file yet.

    Raises:
        DataError: the disk is full, or the operating system refuses to write there.
    """
    partial = tuple(path.with_name(f".{path.name}.{uuid4().hex}.partial") for path in targets)
    created: list[Path] = []
    try:
        yield partial
        for path, target in zip(partial, targets, strict=True):
            existed = target.exists()
            os.replace(path, target)
            if not existed:
                created.append(target)
    except BaseException as error:
        for path in created:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _write_error(targets[0].parent, error) from error
        raise
    finally:
        for path in partial:
            path.unlink(missing_ok=True)


def _write_error(folder: Path, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return data_error(
            folder,
            received="no space left on the device",
            expected="room for the files to be written",
            remedy="Free some space or choose another folder; no half-written file is left behind.",
        )
    return data_error(
        folder,
        received=f"an error on writing ({error})",
        expected="a folder that can be written to",
        remedy="Check its permissions or choose another folder; no half-written file is left behind.",
    )
