"""The results folder of a run: it belongs to one configuration, and no file in it is half-written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eq_aimet.arguments import check_path, check_type
from eq_aimet.experiments.foreign_files import read_json
from eq_aimet.experiments.training.processes import is_first_process
from eq_aimet.files import data_error, make_folder, whole_files

__all__ = ["ResultsFolder"]

_CONFIG = "config.json"


@dataclass(frozen=True)
class ResultsFolder:
    """A folder for the results of one configuration. Make it with `ResultsFolder.open`.

    Attributes:
        path: The path of the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = ResultsFolder.open(Path(parent) / "run", {"seed": 0})
        ...     written = folder.write_text("table.md", "| model |")
        ...     sorted(path.name for path in folder.path.iterdir())
        ['config.json', 'table.md']
    """

    path: Path

    @classmethod
    def open(
        cls, path: str | Path, configuration: Mapping[str, Any], *, resume: bool = False
    ) -> ResultsFolder:
        """Return the folder of a configuration, and make it if it is missing.

        If a training has several processes, only the first process checks and writes the folder.

        Args:
            path: The path of the folder, which need not exist.
            configuration: Plain values, which are written to `config.json`.
            resume: Whether the folder may already hold results of the same configuration.

        Raises:
            DataError: The folder holds other files or results of another configuration, the folder holds
                results of the same configuration and `resume` is False, or the folder can't be written to.
        """
        folder = cls(check_path("path", path))
        check_type("configuration", configuration, Mapping, remedy="Give `Settings.to_dict()`, for example.")
        if not is_first_process():
            return folder
        wanted = json.loads(json.dumps(configuration))
        if folder.path.exists() and not folder.path.is_dir():
            raise data_error(
                folder.path,
                received="a file",
                expected="a folder for the results",
                remedy="Choose another `path`.",
            )
        if folder.path.is_dir() and any(folder.path.iterdir()):
            _check_same(folder.path, wanted, resume=resume)
            return folder
        make_folder(folder.path, purpose="a folder for the results", remedy="Choose another `path`.")
        folder.write_json(_CONFIG, wanted)
        return folder

    def write_text(self, name: str, text: str) -> Path:
        """Return the path of the file after writing the text to it.

        Raises:
            DataError: The file can't be written, for example because the disk is full. An older file is
                still whole.
        """
        return self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: object) -> Path:
        """Return the path of the file after writing plain values to it; raises as `write_text` does.

        Numbers that are not finite become null, because JSON has no such numbers.
        """
        text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
        return self.write_text(name, text + "\n")

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Return the path of the file after writing the bytes to it; raises as `write_text` does."""
        target = self.path / name
        with whole_files([target]) as (partial,):
            partial.write_bytes(content)
        return target

    def subfolder(self, name: str) -> ResultsFolder:
        """Return a folder within this folder; the first process of a training makes it if it is missing."""
        path = self.path / name
        if is_first_process():
            remedy = "Free some space, or choose another `path`."
            make_folder(path, purpose="a folder for the results", remedy=remedy)
        return ResultsFolder(path)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_same(path: Path, wanted: Mapping[str, Any], *, resume: bool) -> None:
    found = read_json(
        path / _CONFIG,
        expected="an empty or a new folder, or the results of the same configuration",
        remedy="Nothing in the folder was changed. Choose another `path`.",
    )
    if found != wanted:
        raise data_error(
            path,
            received=f"the results of another configuration ({_describe_difference(found, wanted)})",
            expected="a new folder, or the results of the same configuration",
            remedy="Nothing in the folder was changed. Choose another `path`.",
        )
    if not resume:
        raise data_error(
            path,
            received="the results of an earlier run of this configuration",
            expected="a new folder",
            remedy="Add `resume=True` to go on with it, which trains no finished network again, or choose "
            "another `path`.",
        )


def _describe_difference(found: object, wanted: Mapping[str, Any]) -> str:
    if not isinstance(found, dict):
        return f"{_CONFIG} is not an object"
    differing = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {found.get(name)!r} instead of {wanted.get(name)!r}" for name in differing)
