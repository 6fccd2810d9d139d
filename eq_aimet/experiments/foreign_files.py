"""Reading of files that another program made: the errors that reading raises, and JSON files."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

from eq_aimet.errors import DataError
from eq_aimet.files import data_error

__all__ = ["READING_ERRORS", "read_json", "reason"]

READING_ERRORS = (
    OSError,
    EOFError,
    MemoryError,
    RuntimeError,  # includes NotImplementedError and RecursionError
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)
"""The errors that h5py, numpy, torch and zipfile raise on damaged files and on files of another kind."""

_LARGEST_JSON = 64 << 20  # bytes


def reason(error: BaseException) -> str:
    """Return the name of an error and the first line of its text.

    Example:
        >>> reason(KeyError("x"))
        "KeyError: 'x'"
    """
    first = next(iter(str(error).splitlines()), "")[:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def read_json(path: Path, *, expected: str, remedy: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file.
        expected: The kind of file that is expected, for the error message.
        remedy: The advice for a user whose file is of another kind.

    Raises:
        DataError: The file is missing, it is not a regular file, it is larger than 64 MB, or it is not JSON.
    """
    received = ""
    try:
        if not path.is_file():
            received = "a path that is not a file" if path.exists() else "no such file"
        elif path.stat().st_size > _LARGEST_JSON:
            received = f"a file of {path.stat().st_size:,} bytes"
        else:
            return json.loads(path.read_text(encoding="utf-8"))
    except READING_ERRORS as error:
        raise _unreadable(path, f"a file that can't be read ({reason(error)})", expected, remedy) from error
    raise _unreadable(path, received, expected, remedy)


def _unreadable(path: Path, received: str, expected: str, remedy: str) -> DataError:
    return data_error(path, received=received, expected=expected, remedy=remedy)
