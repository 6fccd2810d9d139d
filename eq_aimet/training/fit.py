"""A training by Lightning that is quiet, can be interrupted and goes on where it stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerStatus

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.training.checkpoints import (
    BEST,
    LAST,
    BestCheckpoint,
    LastCheckpoint,
    WholeCheckpointIO,
    read_checkpoint,
)
from eq_aimet.training.classifier import ImageClassifier
from eq_aimet.training.history import EpochRecord, History
from eq_aimet.training.progress import EpochProgressBar
from eq_aimet.training.quiet import quiet_libraries

__all__ = ["best_weights", "train_classifier"]

_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def train_classifier(
    classifier: ImageClassifier,
    data: lightning.LightningDataModule,
    folder: str | Path,
    *,
    epochs: int,
    device: str = "cpu",
    precision: str = "32",
    on_epoch: Callable[[EpochRecord], None] | None = None,
    progress: bool = True,
) -> tuple[EpochRecord, ...]:
    """Returns the record of each epoch after training the classifier in place.

    After each epoch the folder holds `last.ckpt`, and `best.ckpt` of the lowest validation loss so far.
    Where `last.ckpt` is there already, the training goes on from it; where that is the last epoch's, nothing
    is trained.

    Args:
        classifier: the model to train; its weights are those of the last epoch afterwards. See
            `best_weights`.
        data: gives the train and the valid batches.
        folder: where the checkpoints are, made where missing.
        epochs: the number of epochs, those before an interruption included.
        device: "cpu" or "cuda".
        precision: "32", "bf16" or "16".
        on_epoch: called with the record of each epoch that is trained now, when its checkpoints are saved.
        progress: whether to show a progress bar.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after Lightning has cleaned up; the checkpoints are whole.
        InvalidArgumentError: there is no such precision.
        DataError: a checkpoint is damaged or can't be written.
    """
    if precision not in _PRECISIONS:
        raise InvalidArgumentError(
            "precision",
            received=repr(precision),
            expected=f"one of {', '.join(map(repr, _PRECISIONS))}",
            remedy="Take '32' on a CPU.",
        )
    folder = Path(folder)
    history = History()
    last = folder / LAST

    def report() -> None:
        if on_epoch is not None:
            on_epoch(history.records[-1])

    callbacks: list[Callback] = [history, BestCheckpoint(folder), LastCheckpoint(folder, report)]
    if progress:
        callbacks.append(EpochProgressBar())
    with quiet_libraries(), _deterministic_cudnn():
        trainer = lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision=_PRECISIONS[precision],  # type: ignore[arg-type]
            max_epochs=epochs,
            callbacks=callbacks,
            plugins=[WholeCheckpointIO()],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,  # ours is a callback
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        with _interruptible(trainer):
            # Modules that a copy of the model left in eval mode would not be trained.
            trainer.fit(
                classifier.train(),
                datamodule=data,
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
    return history.records


def best_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """Returns the model's state dict at the epoch of the lowest validation loss.

    Args:
        folder: where `train_classifier` kept its checkpoints.

    Raises:
        DataError: the checkpoint is missing or damaged.
    """
    weights = read_checkpoint(Path(folder) / BEST)["state_dict"]
    return {
        name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")
    }


@contextmanager
def _interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Turns Lightning's exit after Ctrl-C back into a KeyboardInterrupt, and undoes its deafness to more."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from error
        raise
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _deterministic_cudnn() -> Iterator[None]:
    """Makes cuDNN choose its algorithms without trials, whose outcome depends on the machine's load."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
