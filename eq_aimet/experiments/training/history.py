"""Loss and accuracy of each epoch; the checkpoints hold them, so a resumed training has its whole history."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

__all__ = ["EpochRecord", "History"]


@dataclass(frozen=True)
class EpochRecord:
    """The means over one epoch.

    Attributes:
        epoch: Counted from 1.
        train_loss: The cross-entropy in nats on the augmented training images, measured during the epoch.
        train_accuracy: The share of the training images that are classified correctly, from 0 to 1.
        valid_loss: The cross-entropy in nats on the validation images, measured after the epoch.
        valid_accuracy: The share of the validation images that are classified correctly, from 0 to 1.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float


class History(Callback):
    """Keeps an `EpochRecord` of each finished epoch, across interruptions."""

    def __init__(self) -> None:
        self._records: dict[int, EpochRecord] = {}

    @property
    def records(self) -> tuple[EpochRecord, ...]:
        """The records in the epochs' order."""
        return tuple(self._records[epoch] for epoch in sorted(self._records))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Record the epoch; Lightning calls this callback before it saves the checkpoints."""
        metrics = trainer.callback_metrics
        record = EpochRecord(
            epoch=trainer.current_epoch + 1,
            train_loss=float(metrics["train_loss"]),
            train_accuracy=float(metrics["train_accuracy"]),
            valid_loss=float(metrics["valid_loss"]),
            valid_accuracy=float(metrics["valid_accuracy"]),
        )
        self._records[record.epoch] = record

    def state_dict(self) -> dict[str, Any]:
        """Return the records as plain values for a checkpoint."""
        return {"records": [asdict(record) for record in self.records]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the records of a checkpoint."""
        self._records = {values["epoch"]: EpochRecord(**values) for values in state_dict["records"]}
