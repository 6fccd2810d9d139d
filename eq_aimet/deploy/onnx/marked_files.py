"""The mark that `export_onnx` writes into a file: its content, its simulation's fingerprint, a checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from eq_aimet.deploy.onnx.hostile_files import LARGEST_FILE, reason_to_refuse
from eq_aimet.errors import InvalidArgumentError

__all__ = ["MINIMUM_OPSET", "load_marked", "mark", "marks"]

MINIMUM_OPSET = 13  # the first opset with one scale per channel
_PREFIX = "eq_aimet."
_CHECKSUM = "checksum"


def mark(model: onnx.ModelProto, **facts: str) -> None:
    """Write facts about the file, and a checksum of its graph, into the file's metadata, in place."""
    for key, value in {**facts, _CHECKSUM: _checksum(model)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"{_PREFIX}{key}", value


def marks(model: onnx.ModelProto) -> dict[str, str]:
    """Return the facts that `mark` wrote; an empty dictionary if another program wrote the file."""
    return {
        entry.key.removeprefix(_PREFIX): entry.value
        for entry in model.metadata_props
        if entry.key.startswith(_PREFIX)
    }


def load_marked(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return the model in a file that `export_onnx` wrote and nobody changed since.

    The function reads only this file, and refuses a file that would need too much memory.

    Raises:
        InvalidArgumentError: If the file does not exist, `export_onnx` did not write it, or it was changed.
    """
    try:
        file = Path(path)
        model, received = _read(file)
    except (TypeError, ValueError) as error:  # None, a number, a path with a NUL
        file, model, received = Path(), None, f"{path!r}, which is not a path ({error})"
    received = received or (_reason(file, model) if model is not None else "")
    if received or model is None:
        raise InvalidArgumentError(
            "path",
            received=received,
            expected="a file that `export_onnx` wrote",
            remedy="Export the simulation again: `export_onnx(sim, dummy_input, path)`.",
        )
    return model


def _read(file: Path) -> tuple[onnx.ModelProto | None, str]:
    """Return the model in a file, or the reason why the file can't be read."""
    if file.is_dir():
        return None, f"`{file}`, a folder"
    if not file.is_file():
        return None, f"`{file}`, which does not exist"
    if file.stat().st_size > LARGEST_FILE:
        return None, f"`{file}`, which has {file.stat().st_size:,} bytes"
    model = onnx.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except (DecodeError, OSError) as error:
        return None, f"`{file}`, which is not an ONNX file ({error})"
    return model, ""


def _reason(file: Path, model: onnx.ModelProto) -> str:
    """Return why the model in the file is refused, or an empty string."""
    facts = marks(model)
    if not facts:
        return f"`{file}`, an ONNX file that `export_onnx` did not write"
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    if opset < MINIMUM_OPSET:
        return f"`{file}` of opset {opset}, which is older than {MINIMUM_OPSET}"
    if _CHECKSUM not in facts:
        return f"`{file}`, which an older version of eq_aimet wrote without a checksum"
    if facts[_CHECKSUM] != _checksum(model):
        return f"`{file}`, which was changed or damaged after `export_onnx` wrote it: its checksum is wrong"
    unfit = reason_to_refuse(model)
    return f"`{file}`, {unfit}" if unfit else ""


def _checksum(model: onnx.ModelProto) -> str:
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True))
    for entry in (*model.opset_import, *model.functions):
        digest.update(entry.SerializeToString(deterministic=True))
    return digest.hexdigest()
