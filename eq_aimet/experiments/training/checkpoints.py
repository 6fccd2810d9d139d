"""Checkpoints that appear whole or not at all, and that load without executing anything that they hold."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

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

# What zipfile and torch raise on files that are damaged, or something else altogether.
_READING_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,  # NotImplementedError too
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


class UnusableCheckpointError(Exception):
    """A checkpoint can't be gone on from; its text is the reason."""


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint under another name first, and reads checkpoints with `weights_only`.

    A `last.ckpt` that is there becomes `previous.ckpt` just before the new one takes its name.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes the checkpoint; raises `DataError` if it can't, and the older files stay whole."""
        write_checkpoint(checkpoint, Path(path), older=PREVIOUS)

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Returns the checkpoint's contents, on the CPU; raises as `read_checkpoint` does."""
        return read_checkpoint(Path(path))


class EpochCheckpoint(Checkpoint):
    """Keeps `last.ckpt`, of the last finished epoch, and `best.ckpt`, of the lowest validation loss.

    `last.ckpt` holds the best epoch's weights too. So it is all that a resumed training needs, and there is
    no moment at which an interruption leaves two files that do not belong together: `best.ckpt` can be
    written anew from it.

    Args:
        folder: where the files are kept.
        on_saved: called after each epoch, once the files are whole; in the first process only.
    """

    def __init__(self, folder: Path, on_saved: Callable[[], None] | None = None) -> None:
        self._folder = folder
        self._on_saved = on_saved
        self._best: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Saves the epoch's checkpoints; Lightning calls it after those of the other callbacks."""
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
        """Returns the best epoch for a checkpoint: its number, its loss and its weights."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the best epoch of a checkpoint in place of its own."""
        self._best = state_dict["best"]


def write_checkpoint(checkpoint: Mapping[str, Any], target: Path, *, older: str | None = None) -> None:
    """Writes a checkpoint, which takes its name once it is on the disk as a whole.

    Args:
        checkpoint: tensors and plain values.
        target: its path.
        older: the name that a checkpoint which is there gets; by default it is overwritten.

    Raises:
        DataError: it can't be written, for want of space for instance; what was there stays whole.
    """
    content = io.BytesIO()
    torch.save(dict(checkpoint), content)
    with whole_files([target]) as (partial,):
        with open(partial, "xb") as file:
            file.write(content.getbuffer())
        if older is not None and target.exists():
            os.replace(target, target.with_name(older))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's contents, on the CPU; only tensors and plain values are accepted.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        return load_checkpoint(path)
    except UnusableCheckpointError as error:
        raise data_error(
            path,
            received=str(error),
            expected="a checkpoint of an earlier run",
            remedy="Remove the run's folder to start anew.",
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what `read_checkpoint` does.

    Raises:
        UnusableCheckpointError: the file is missing, damaged, or holds something else.
    """
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        checkpoint = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except _READING_ERRORS as error:
        reason = next(iter(str(error).splitlines()), "")
        raise UnusableCheckpointError(
            f"a file that can't be read ({type(error).__name__}: {reason})"
        ) from error
    if damaged:
        raise UnusableCheckpointError(f"a damaged file (the checksum of its part `{damaged}` is wrong)")
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise UnusableCheckpointError("a file without a `state_dict`")
    return dict(checkpoint)
