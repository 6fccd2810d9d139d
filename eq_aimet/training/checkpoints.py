"""Checkpoints that appear whole or not at all, and that load without executing anything that they hold."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from eq_aimet.data.atomic import data_error, whole_files

__all__ = ["BEST", "LAST", "BestAndLastCheckpoint", "WholeCheckpointIO", "read_checkpoint"]

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


class BestAndLastCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the lowest validation loss, and `last.ckpt`, of the last finished epoch.

    Unlike Lightning's own, it remembers the lowest loss after its folder was moved.

    Args:
        folder: where the two files are kept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder,
            filename=Path(BEST).stem,
            monitor="valid_loss",
            mode="min",
            save_top_k=1,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a checkpoint's state in place of its own, with the files where they are now."""
        best = str(Path(str(self.dirpath)) / BEST)
        scores = dict.fromkeys([best] if state_dict["best_k_models"] else [], state_dict["best_model_score"])
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": scores,
                "best_model_path": best,
                "kth_best_model_path": best,
                "last_model_path": str(Path(str(self.dirpath)) / LAST),
            }
        )


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
