"""The checks of `export_onnx`'s arguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx

from eq_aimet.deploy.onnx.marked_files import MINIMUM_OPSET
from eq_aimet.errors import InvalidArgumentError

__all__ = ["DEFAULT_OPSET", "check_choices", "check_target"]

DEFAULT_OPSET = 17
_STORAGES = ("orbits", "plain")


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the path to write an ONNX file to.

    Raises:
        InvalidArgumentError: If `path` is not a path, is a folder, or does not end in `.onnx`; or if its
            folder does not exist or is not writable.
    """
    is_path = isinstance(path, (str, os.PathLike)) and "\0" not in str(path) and str(path) != ""
    target = Path(path if is_path else "")
    if not is_path:
        received, expected = repr(path), "the path of the file to write"
        remedy = 'For example `"model.onnx"`.'
    elif target.is_dir():
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


def check_choices(storage: Any, arranged: Any, float_model: Any, opset_version: Any) -> None:
    """Check the options of `export_onnx`.

    Raises:
        InvalidArgumentError: If the value of an option is not allowed by `export_onnx`.
    """
    if storage not in _STORAGES:
        raise InvalidArgumentError(
            "storage",
            received=repr(storage),
            expected=" or ".join(f'"{name}"' for name in _STORAGES),
            remedy='Take "orbits" for small files.',
        )
    for name, value in (("arranged", arranged), ("float_model", float_model)):
        if not isinstance(value, bool):
            raise InvalidArgumentError(
                name, received=repr(value), expected="True or False", remedy="Leave it out for the default."
            )
    newest = onnx.defs.onnx_opset_version()
    is_number = isinstance(opset_version, int) and not isinstance(opset_version, bool)
    if not is_number or not MINIMUM_OPSET <= opset_version <= newest:
        raise InvalidArgumentError(
            "opset_version",
            received=repr(opset_version),
            expected=f"a whole number from {MINIMUM_OPSET}, the first with one scale per channel, to "
            f"{newest}, the last that onnx {onnx.__version__} knows",
            remedy=f"Leave it out: onnxruntime understands {DEFAULT_OPSET} since its version 1.12.",
        )
