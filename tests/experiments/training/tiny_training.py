"""A training that takes a second, and the processes that it is killed in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from eq_aimet.experiments.training import ImageClassifier, train_classifier
from eq_aimet.experiments.training.sampling import AugmentedDataset, EpochSampler

EPOCHS = 4


class TinyData(lightning.LightningDataModule):
    """Random images whose label is the brighter half; the training labels are wrong if `noisy`."""

    batch_size = 8

    def __init__(self, noisy: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(48, 3, 5, 5, generator=generator)
        labels = (images.mean((1, 2, 3)) > 0.5).long()
        self.train = TensorDataset(images[:32], 1 - labels[:32] if noisy else labels[:32])
        self.valid = TensorDataset(images[32:], labels[32:])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            AugmentedDataset(self.train, seed=1), batch_size=8, sampler=EpochSampler(32, seed=1)
        )

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.valid, batch_size=8)


def classifier() -> ImageClassifier:
    torch.manual_seed(5)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.3),  # its draws must not depend on what ran before
        torch.nn.Flatten(),
        torch.nn.Linear(36, 2),
    )
    return ImageClassifier(model, learning_rate=0.02, seed=1)


def train(folder, *, stop_after=None, data=None, epochs=EPOCHS, **options):
    """Returns the trained classifier and its history."""

    def on_epoch(record):
        if record.epoch == stop_after:
            raise KeyboardInterrupt

    trained = classifier()
    options = {"on_epoch": on_epoch, "progress": False, **options}
    history = train_classifier(trained, data or TinyData(), folder, epochs=epochs, **options)
    return trained, history


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Raises unless the state dicts are equal, bit for bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def run_in_process(target: Callable[..., None], *arguments: Any) -> int | None:
    """Returns the exit code of the function in a process of its own, negative if a signal ended it."""
    return join_process(start_process(target, *arguments))


def start_process(target: Callable[..., None], *arguments: Any) -> multiprocessing.process.BaseProcess:
    """Returns a process that runs the function; it starts in a moment, with Lightning imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["eq_aimet.experiments.training.fit", "pytest"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def join_process(process: multiprocessing.process.BaseProcess) -> int | None:
    """Returns the exit code of a process once it has ended, which it must within a minute."""
    process.join(60)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    return process.exitcode


def saved_result(path: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Returns what `tests/experiments/training/test_kill.py` saved of a training: weights and history."""
    weights, history = torch.load(path, weights_only=True)
    return weights, history
