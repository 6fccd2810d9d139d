"""The progress bar of a training."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import RichProgressBar

__all__ = ["EpochProgressBar"]


class EpochProgressBar(RichProgressBar):
    """Lightning's bar on `rich.get_console()`; it counts epochs from 1 and vanishes at the end."""

    def __init__(self) -> None:
        super().__init__(leave=False)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Shows the bar."""
        super().on_train_start(trainer, pl_module)
        if self.progress is not None:
            self.progress.live.transient = True

    def _get_train_description(self, current_epoch: int) -> str:
        # As wide as "Validation", which takes turns with it.
        return f"{f'epoch {current_epoch + 1}/{self.trainer.max_epochs}':<{len(self.validation_description)}}"
