"""Checkpoints that appear whole or not at all, and that load without executing anything that they hold."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eq_aimet.data.atomic import data_error, whole_files

__all__ = ["BEST", "LAST", "BestCheckpoint", "LastCheckpoint", "WholeCheckpointIO", "read_checkpoint"]

BEST = "best.ckpt"
LAST = "last.ckpt"


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint under another name first, and reads checkpoints with `weights_only`."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None
    ) -> None:
        """Writes the checkpoint; raises `DataError` if it can't, and the older file stays whole."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_files([target]) as (partial,):
            partial.write_bytes(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Returns the checkpoint's contents, on the CPU; raises as `read_checkpoint` does."""
        return read_checkpoint(Path(path))


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the epoch of the lowest validation loss.

    Unlike Lightning's own, it remembers the lowest loss after its folder was moved.

    Args:
        folder: where the file is kept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(BEST).stem,
            monitor="valid_loss",
            mode="min",
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a checkpoint's state in place of its own, with the file where it is now."""
        best = str(Path(str(self.dirpath)) / BEST)
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {best: state_dict["best_model_score"]},
                "best_model_path": best,
                "kth_best_model_path": best,
            }
        )


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, of the last finished epoch.

    Lightning's `save_last` saves improvements only, so that all epochs since the best one would be lost.
    To be placed after the callbacks whose state it shall keep.

    Args:
        folder: where the file is kept.
        on_saved: called after each epoch, once the file is whole.
    """

    def __init__(self, folder: Path, on_saved: Callable[[], None] | None = None) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(LAST).stem,
            save_top_k=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self._on_saved = on_saved

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Saves the epoch's checkpoint."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._on_saved is not None:
            self._on_saved()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps its own state: the file is overwritten at each epoch, wherever it was."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns a checkpoint's contents, on the CPU; only tensors and plain values are accepted.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise data_error(
            path,
            received=f"a file that can't be read ({type(error).__name__}: {reason})",
            expected="a checkpoint of an earlier run",
            remedy="Remove the run's folder to start anew.",
        ) from error
    if not isinstance(checkpoint, Mapping) or "state_dict" not in checkpoint:
        raise data_error(
            path,
            received="a file without a `state_dict`",
            expected="a checkpoint of an earlier run",
            remedy="Remove the run's folder to start anew.",
        )
    return dict(checkpoint)
