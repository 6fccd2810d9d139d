"""The progress bar of a training."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["EpochProgressBar"]


class EpochProgressBar(Callback):
    """Shows one bar an epoch, over its training and validation batches, on `rich.get_console()`.

    Lightning's own bar hides the last line that is printed above it, and counts epochs from 0. This bar
    disappears when the training ends. If the console is not a terminal, each finished epoch prints one line.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeRemainingColumn(),
            console=get_console(),
            transient=True,
            expand=True,
        )
        self._task: TaskID = self._progress.add_task("", total=None)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar, in the first process only."""
        if trainer.is_global_zero:
            self._progress.start()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the bar back at the first batch; for a resumed epoch Lightning skips `on_train_epoch_start`."""
        if batch_idx == 0:
            total = trainer.num_training_batches + sum(map(int, trainer.num_val_batches))
            description = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._progress.reset(self._task, total=int(total), description=description)

    def on_train_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Move on by a batch."""
        self._progress.advance(self._task)

    def on_validation_batch_end(self, *arguments: Any, **options: Any) -> None:
        """Move on by a batch."""
        self._progress.advance(self._task)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print a line if the console is not a terminal."""
        console = self._progress.console
        if trainer.is_global_zero and not console.is_terminal:
            console.print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", highlight=False)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove the bar."""
        self._progress.stop()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Remove the bar, and show the terminal's cursor again."""
        self._progress.stop()
