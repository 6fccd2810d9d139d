"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eq_aimet.errors import DataError, InvalidArgumentError

__all__ = ["check_target", "written_whole"]


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the path to write an ONNX file to.

    Raises:
        InvalidArgumentError: If it is a folder, doesn't end in `.onnx`, or its folder does not exist or
            can't be written to.
    """
    target = Path(path)
    if target.is_dir():
        received, expected = f"`{target}`, a folder", "the name of the file to write"
        remedy = f"Add a file name, for example `{target / 'model.onnx'}`."
    elif target.suffix != ".onnx":
        received, expected = f"`{target}`", "a name that ends in `.onnx`"
        remedy = "The files beside it take the same name with other endings."
    elif not target.parent.is_dir():
        received, expected = f"`{target}`, in a folder that does not exist", "an existing folder"
        remedy = f"Create it: mkdir -p {target.parent}"
    elif not os.access(target.parent, os.W_OK):
        received = f"`{target}`, in a folder that can't be written to"
        expected, remedy = "a folder that you may write to", "Change its permissions or choose another one."
    else:
        return target
    raise InvalidArgumentError("path", received=received, expected=expected, remedy=remedy)


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Yield a folder beside `target`; what it holds when the block ends takes the place of older files.

    The files are written in full before the first of them is renamed. If the block raises, or the disk
    fills, nothing of it remains and older files are as they were.

    Raises:
        DataError: If the operating system refuses to write.
    """
    folder: Path | None = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}.", dir=target.parent))
        yield folder
        for file in folder.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        for file in sorted(folder.iterdir()):
            os.replace(file, target.parent / file.name)
    except OSError as error:
        raise DataError(
            f"`{target}`: could not be written ({error.strerror or error}); nothing of it was left behind "
            "and an older file is as it was. Free some space or choose another folder."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
