"""A network of a run, trained once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from eq_aimet.experiments.networks import build_network
from eq_aimet.experiments.training import ImageClassifier, best_weights, quiet_libraries, train_classifier

if TYPE_CHECKING:
    from eq_aimet.experiments.results import ResultsFolder
    from eq_aimet.experiments.settings import Settings
    from eq_aimet.experiments.training import EpochRecord, ImageDataModule

__all__ = ["count_parameters", "train_network"]


def train_network(
    name: str,
    settings: Settings,
    data: ImageDataModule,
    folder: ResultsFolder,
    *,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
    progress: bool = False,
) -> tuple[torch.nn.Module, tuple[EpochRecord, ...]]:
    """Return the network with the weights of the lowest validation loss, and the record of each epoch.

    If the folder holds checkpoints of an earlier run, the training resumes; if all epochs are done, it trains
    nothing.

    Args:
        name: "conventional" or "equivariant".
        settings: The run's.
        data: Its data.
        folder: The network's own.
        on_epoch: Called with the record of each epoch that is trained now.
        on_notice: Called with a line about each checkpoint that could not be used.
        progress: Whether to show a progress bar.

    Raises:
        InvalidArgumentError: The settings and this machine don't go together; see `train_classifier`.
        DataError: No checkpoint is usable, or one can't be written.
    """
    torch.manual_seed(settings.seed)  # the initial weights
    with quiet_libraries():
        model = build_network(name, settings)
    history = train_classifier(
        ImageClassifier(
            model,
            classes=data.classes,
            learning_rate=settings.learning_rate,
            seed=settings.seed,
        ),
        data,
        folder.path,
        epochs=settings.epochs,
        device=settings.device,
        devices=settings.devices,
        nodes=settings.nodes,
        precision=settings.precision,
        compile=settings.compile,
        on_epoch=on_epoch,
        on_notice=on_notice,
        progress=progress,
    )
    model.load_state_dict(best_weights(folder.path))
    return model.to(settings.device).eval(), history


def count_parameters(model: torch.nn.Module) -> int:
    """Return how many numbers the training learns."""
    return sum(parameter.numel() for parameter in model.parameters())
