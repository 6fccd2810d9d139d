"""The path of an ONNX file that will be written."""

from __future__ import annotations

import os
from pathlib import Path

from eq_aimet.errors import InvalidArgumentError

__all__ = ["check_target"]


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
