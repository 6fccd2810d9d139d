"""Checkpoints that are never half-written, and that execute no code when they are loaded."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eq_aimet.experiments.foreign_files import READING_ERRORS, reason
from eq_aimet.files import data_error, whole_files

__all__ = [
    "BEST",
    "LAST",
    "PREVIOUS",
    "EpochCheckpoint",
    "UnusableCheckpointError",
    "WholeCheckpointIO",
    "load_checkpoint",
    "read_checkpoint",
    "write_checkpoint",
]

BEST = "best.ckpt"
LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"

_DIGEST = "sha256"  # the key of the checksum of all other entries
_MOST_ENTRIES = 1_000_000  # a list that holds itself never ends


class UnusableCheckpointError(Exception):
    """Training cannot resume from a checkpoint; the text is the reason."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint under another name first, and reads checkpoints with `weights_only`.

    An existing `last.ckpt` becomes `previous.ckpt` just before the new checkpoint gets the name `last.ckpt`.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Write the checkpoint; if that fails, raise `DataError` and keep the older files."""
        write_checkpoint(checkpoint, Path(path), older=PREVIOUS)

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the checkpoint's contents, on the CPU; raise the errors of `read_checkpoint`."""
        return read_checkpoint(Path(path))


class EpochCheckpoint(Checkpoint):
    """Keeps `last.ckpt`, of the last finished epoch, and `best.ckpt`, of the lowest validation loss.

    `last.ckpt` holds the best epoch's weights too, so a resumed training needs no other file. If a kill
    leaves a `best.ckpt` of another epoch, `best.ckpt` is written again from `last.ckpt`.

    Args:
        folder: The folder of the files.
        on_saved: Called after each epoch, once the files are whole; in the first process only.
    """

    def __init__(self, folder: Path, on_saved: Callable[[], None] | None = None) -> None:
        self._folder = folder
        self._on_saved = on_saved
        self._best: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the epoch's checkpoints; Lightning calls this callback after the other ones."""
        loss = float(trainer.callback_metrics["valid_loss"])
        improved = self._best is None or loss < self._best["valid_loss"]
        if improved:
            self._best = {
                "epoch": trainer.current_epoch + 1,
                "valid_loss": loss,
                "state_dict": {
                    name: value.detach().cpu().clone() for name, value in pl_module.state_dict().items()
                },
            }
        trainer.save_checkpoint(self._folder / LAST)
        if not trainer.is_global_zero:
            return
        if improved and self._best is not None:
            write_checkpoint(self._best, self._folder / BEST)
        if self._on_saved is not None:
            self._on_saved()

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch for a checkpoint: its number, its loss and its weights."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best epoch of a checkpoint."""
        self._best = state_dict["best"]


def write_checkpoint(checkpoint: Mapping[str, Any], target: Path, *, older: str | None = None) -> None:
    """Write a checkpoint under another name, and rename it when it is complete.

    Args:
        checkpoint: Tensors and plain values.
        target: The path of the checkpoint.
        older: The new name of an existing checkpoint; by default the existing checkpoint is overwritten.

    Raises:
        DataError: The checkpoint can't be written, for example because the disk is full; older files stay.
    """
    content = io.BytesIO()
    torch.save({**checkpoint, _DIGEST: _digest(checkpoint)}, content)
    with whole_files([target]) as (partial,):
        with open(partial, "xb") as file:
            file.write(content.getbuffer())
        if older is not None and target.exists():
            os.replace(target, target.with_name(older))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents, on the CPU; only tensors and plain values are accepted.

    Raises:
        DataError: The file is missing, it is damaged, or it is not a checkpoint of eq_aimet.
    """
    try:
        return load_checkpoint(path)
    except UnusableCheckpointError as error:
        raise data_error(
            path,
            received=str(error),
            expected="a checkpoint of an earlier run",
            remedy="Remove the run's folder to start again.",
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's contents as `read_checkpoint` does, for callers that can use another checkpoint.

    Raises:
        UnusableCheckpointError: The file is missing, it is damaged, or it is not a checkpoint of eq_aimet.
    """
    if path.exists() and not path.is_file():
        raise UnusableCheckpointError("a path that is not a file")
    try:
        _check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        is_checkpoint = isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), Mapping)
        is_own = is_checkpoint and checkpoint.pop(_DIGEST, None) == _digest(checkpoint)
    except READING_ERRORS as error:
        raise UnusableCheckpointError(f"a file that can't be read ({reason(error)})") from error
    if not is_checkpoint:
        raise UnusableCheckpointError("a file without a `state_dict`")
    if not is_own:
        raise UnusableCheckpointError("a checkpoint that eq_aimet has not written, or that was changed since")
    return dict(checkpoint)


def _check_archive(path: Path) -> None:
    """Raise if the archive is damaged, or if it holds more bytes than the file."""
    with zipfile.ZipFile(path) as archive:
        # torch compresses nothing. Compressed parts could fill the memory.
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise UnusableCheckpointError("an archive with compressed parts")
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise UnusableCheckpointError("an archive that claims more bytes than the file has")
        # torch writes checksums, but does not compare them.
        damaged = archive.testzip()
    if damaged:
        raise UnusableCheckpointError(f"a damaged file (the checksum of its part `{damaged}` is wrong)")


def _digest(checkpoint: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all keys, values and tensors of a checkpoint.

    Raises:
        UnusableCheckpointError: A tensor claims more values than it stores, or there are too many entries.
    """
    digest = hashlib.sha256()
    entries = [checkpoint]
    for _ in range(_MOST_ENTRIES):
        if not entries:
            return digest.hexdigest()
        value: Any = entries.pop()
        if isinstance(value, torch.Tensor):
            if value.nbytes > value.untyped_storage().nbytes():
                raise UnusableCheckpointError("a tensor that claims more values than it stores")
            digest.update(f"tensor {value.dtype}{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            digest.update(f"mapping {len(value)};".encode())
            entries += [entry for pair in value.items() for entry in pair]
        elif isinstance(value, (list, tuple)):
            digest.update(f"sequence {len(value)};".encode())
            entries += value
        else:
            digest.update(f"{type(value).__name__} {value!r};".encode())
    raise UnusableCheckpointError(f"more than {_MOST_ENTRIES:,} entries")
