"""The training of one network of a run."""

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

    If the folder holds checkpoints of an earlier run, the training resumes. If all epochs are done, the
    function trains nothing.

    Args:
        name: "conventional" or "equivariant".
        settings: The settings of the run.
        data: The data of the run.
        folder: The network's own folder.
        on_epoch: A function that is called with the record of each newly trained epoch.
        on_notice: A function that is called with a line about each checkpoint that could not be used.
        progress: Whether to show a progress bar.

    Raises:
        InvalidArgumentError: This machine cannot train with these settings; see `train_classifier`.
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
    """Return the number of trained parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
