"""Writing files completely or not at all: a reader never sees half a file or a mix of old and new files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from eq_aimet.errors import DataError

__all__ = ["data_error", "make_folder", "remove_partial", "whole_files"]


def data_error(path: Path, *, received: str, expected: str, remedy: str) -> DataError:
    """Return a `DataError` that names the path, the received and the expected content, and the remedy."""
    return DataError(f"`{path}`: received {received}; expected {expected}. {remedy}")


def make_folder(path: Path, *, purpose: str, remedy: str = "Choose another one.") -> None:
    """Make the folder if it is missing.

    Args:
        path: The folder.
        purpose: The purpose of the folder, e.g. "a folder to write into".
        remedy: The advice for the user if the folder can't be made.

    Raises:
        DataError: If the folder can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        received = f"a folder that can't be made ({error.strerror})"
        raise data_error(path, received=received, expected=purpose, remedy=remedy) from error


@contextmanager
def whole_files(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Yield temporary paths to write to; the files take the targets' places when the block ends.

    The temporary paths have the names of their targets and lie in hidden folders beside them. The block may
    write further files into these folders; they are removed with the folders. If the block raises, if a file
    can't be renamed, or if the user presses Ctrl-C at any moment, either all targets are new or all are old.
    Only a process that is killed between two renamings can leave some targets new and others old.

    Args:
        targets: The files to write. Their folders exist.

    Yields:
        One path for each target. No file exists there yet.

    Raises:
        DataError: If the disk is full, or the operating system refuses to write.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     target = Path(folder) / "answer.txt"
        ...     with whole_files([target]) as (partial,):
        ...         _ = partial.write_text("42")
        ...     target.read_text()
        '42'
    """
    mark = f".{targets[0].name}.{uuid4().hex}.partial"
    folders = {target.parent: target.parent / mark for target in targets}
    partial = tuple(folders[target.parent] / target.name for target in targets)
    try:
        for folder in folders.values():
            folder.mkdir()
        yield partial
        for path in partial:
            _flush(path)
        with _interrupts_held_back():
            _put_in_place(partial, targets)
            _remove(folders.values())
    except OSError as error:
        raise _write_error(targets[0].parent, error) from error
    finally:
        with _interrupts_held_back():
            _remove(folders.values())


def remove_partial(target: Path) -> None:
    """Remove the temporary folders that killed processes left beside `target`."""
    _remove(target.parent.glob(f".{target.name}.*.partial"))


def _flush(path: Path) -> None:
    """Have the operating system write the file to the disk, so that a power failure can't empty it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _put_in_place(partial: Sequence[Path], targets: Sequence[Path]) -> None:
    """Rename each file to its target; undo all renamings if one fails."""
    with ExitStack() as undo:
        for path, target in zip(partial, targets, strict=True):
            older = path.with_name(f"{path.name}.older")
            if not os.path.lexists(target):
                undo.callback(target.unlink, missing_ok=True)
            elif len(targets) > 1:  # a single renaming either happens completely or not at all
                _keep(target, older)
                undo.callback(os.replace, older, target)
            os.replace(path, target)
        undo.pop_all()


def _keep(target: Path, older: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links."""
    try:
        os.link(target, older, follow_symlinks=False)
    except (OSError, NotImplementedError):
        shutil.copy2(target, older, follow_symlinks=False)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Delay Ctrl-C until the block has ended. Only the main thread receives Ctrl-C."""
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or former is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
        if came:
            signal.raise_signal(signal.SIGINT)


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
        remedy="Check its permissions or choose another folder; no half-written file is left behind, and "
        "older files are as they were.",
    )
