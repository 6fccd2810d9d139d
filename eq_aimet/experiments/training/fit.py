"""A training by Lightning that prints nothing of its own, and that resumes after an interruption."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerStatus

from eq_aimet.arguments import check_flag, check_integer, check_path, check_type
from eq_aimet.experiments.training.checkpoints import (
    BEST,
    EpochCheckpoint,
    WholeCheckpointIO,
    read_checkpoint,
)
from eq_aimet.experiments.training.classifier import ImageClassifier
from eq_aimet.experiments.training.devices import PRECISIONS, check_devices
from eq_aimet.experiments.training.failures import explained_failures
from eq_aimet.experiments.training.history import EpochRecord, History
from eq_aimet.experiments.training.progress import EpochProgressBar
from eq_aimet.experiments.training.quiet import quiet_libraries
from eq_aimet.experiments.training.resuming import checkpoint_to_resume, prepare_folder
from eq_aimet.snapshot import Snapshot

__all__ = ["best_weights", "train_classifier"]

_logger = logging.getLogger(__name__)

_PRECISIONS = dict(zip(PRECISIONS, ("32-true", "bf16-mixed", "16-mixed"), strict=True))


def train_classifier(
    classifier: ImageClassifier,
    data: lightning.LightningDataModule,
    folder: str | Path,
    *,
    epochs: int,
    device: str = "cpu",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "32",
    compile: bool = False,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
    progress: bool = True,
) -> tuple[EpochRecord, ...]:
    """Train the classifier in place, and return the record of each epoch.

    After each epoch the folder holds three checkpoints: `last.ckpt` of this epoch, `previous.ckpt` of the
    epoch before, and `best.ckpt` of the lowest validation loss so far. If the folder holds checkpoints when
    the training starts, the training resumes from the last undamaged one; if all epochs are done, it trains
    nothing. On a CPU, an interrupted and resumed training has the same result as an uninterrupted one, bit
    for bit.

    With several devices or nodes, each device has a process of its own, with the model and its share of the
    images; they average their gradients (DistributedDataParallel). Batch norms see the images of their own
    process. The checkpoints hold the batch norms of the first process. All processes return the same records.

    If the training fails before its first batch, e.g. on a checkpoint of another optimizer, the classifier
    stays as it was.

    Args:
        classifier: The model to train; its weights are those of the last epoch afterwards. See
            `best_weights`.
        data: The batches of the train and the valid split; each process gets its share.
        folder: The folder of the checkpoints; it is made if it is missing. Several nodes must share its disk.
        epochs: The number of epochs, including the epochs before an interruption.
        device: "cpu" or "cuda".
        devices: The number of devices of each node.
        nodes: The number of machines.
        precision: "32", "bf16" or "16".
        compile: Whether to train through `torch.compile`; the checkpoints are the same.
        on_epoch: Called with the record of each epoch that is trained now, when its checkpoints are saved;
            in the first process only.
        on_notice: Called with a line about each checkpoint that could not be used, in the first process only;
            by default it is logged as a warning.
        progress: Whether to show a progress bar.

    Raises:
        KeyboardInterrupt: On Ctrl-C, after Lightning has cleaned up; the checkpoints are whole.
        InvalidArgumentError: The precision or the number of devices is not possible, the memory is too small
            for the batches, a worker died, the model can't be compiled, or the loss is not finite.
        DataError: The folder holds no usable checkpoint, or a checkpoint can't be written.
    """
    check_type("classifier", classifier, ImageClassifier, remedy="Wrap the model in an ImageClassifier.")
    check_type(
        "data", data, lightning.LightningDataModule, remedy="Give an ImageDataModule or a PatchDataModule."
    )
    folder = check_path("folder", folder)
    epochs = check_integer("epochs", epochs, remedy="Try 8.")
    check_devices(device, devices, nodes, precision)
    check_flag("compile", compile)
    history = History()

    def report() -> None:
        if on_epoch is not None:
            on_epoch(history.records[-1])

    callbacks: list[Callback] = [history, EpochCheckpoint(folder, report)]
    if progress:
        callbacks.append(EpochProgressBar())
    first_batch = _FirstBatch()
    callbacks.append(first_batch)
    trainer = _make_trainer(folder, callbacks, epochs, device, devices, nodes, precision)
    last = _find_last(trainer, folder, classifier, on_notice or _logger.warning)
    with (
        _unchanged_until(first_batch, classifier),
        quiet_libraries(),
        _deterministic_cudnn(),
        explained_failures(data, last),
        _interruptible(trainer),
        _compiled(classifier.model, compile),
    ):
        # Modules that a copy of the model left in eval mode would not be trained.
        trainer.fit(classifier.train(), datamodule=data, ckpt_path=last, weights_only=True)
    return history.records


def best_weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """Return the model's state dict at the epoch of the lowest validation loss.

    Args:
        folder: The folder of `train_classifier`'s checkpoints.

    Raises:
        DataError: The checkpoint is missing or damaged.
    """
    weights = read_checkpoint(check_path("folder", folder) / BEST)["state_dict"]
    return {
        name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")
    }


def _make_trainer(
    folder: Path,
    callbacks: list[Callback],
    epochs: int,
    device: str,
    devices: int,
    nodes: int,
    precision: str,
) -> lightning.Trainer:
    with quiet_libraries():
        return lightning.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
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


def _find_last(
    trainer: lightning.Trainer,
    folder: Path,
    classifier: ImageClassifier,
    notify: Callable[[str], None],
) -> Path | None:
    """Return the checkpoint to resume from; only the first process changes files."""
    epochs = trainer.max_epochs or 0
    if not trainer.is_global_zero:
        return checkpoint_to_resume(folder, classifier, epochs, notify=lambda line: None, mend=False)
    prepare_folder(folder)
    return checkpoint_to_resume(folder, classifier, epochs, notify=notify)


class _FirstBatch(Callback):
    """Remembers whether the training has reached its first batch."""

    is_reached = False

    def on_train_batch_start(self, *arguments: Any, **options: Any) -> None:
        """Remember that there was a batch."""
        self.is_reached = True


@contextmanager
def _unchanged_until(first_batch: _FirstBatch, classifier: ImageClassifier) -> Iterator[None]:
    """Put the classifier back as it was if the block fails before the first batch.

    Lightning has then copied the checkpoint's weights into the classifier, but it has trained nothing.
    """
    snapshot = Snapshot(classifier)
    try:
        yield
    except BaseException:
        if not first_batch.is_reached:
            snapshot.restore()
        raise


@contextmanager
def _compiled(model: torch.nn.Module, wanted: bool) -> Iterator[None]:
    """Compile the model in place while the block runs; the names of its parameters stay as they are."""
    if wanted:
        model.compile()
    try:
        yield
    finally:
        model._compiled_call_impl = None


@contextmanager
def _interruptible(trainer: lightning.Trainer) -> Iterator[None]:
    """Turn Lightning's exit after Ctrl-C back into a KeyboardInterrupt, and restore the SIGINT handler."""
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
    """Make cuDNN choose its algorithms without trials, whose outcome depends on the machine's load."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
