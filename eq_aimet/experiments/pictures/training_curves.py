"""The picture of a training: loss and accuracy over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.figure import (
    colours_of,
    legend_below,
    literal,
    new_figure,
    percent,
    tidy,
    to_png,
)

if TYPE_CHECKING:
    from eq_aimet.experiments.training.history import EpochRecord

__all__ = ["plot_training"]


def plot_training(histories: Mapping[str, Sequence[EpochRecord]], *, title: str = "") -> bytes:
    """Return a PNG with the loss and the accuracy of each model over the epochs.

    Solid lines show the validation, and dashed lines the training. A ring marks the epoch whose weights are
    kept.

    Args:
        histories: The records by the model's name, at most seven models.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: There is no model, there are too many models, or a model has no record.

    Example:
        >>> from eq_aimet.experiments.training.history import EpochRecord
        >>> record = EpochRecord(1, train_loss=0.6, train_accuracy=0.7, valid_loss=0.5, valid_accuracy=0.8)
        >>> plot_training({"equivariant": [record]})[1:4]
        b'PNG'
    """
    from matplotlib.ticker import MaxNLocator

    for name, records in histories.items():
        if not records:
            raise InvalidArgumentError(
                "histories",
                received=f"no record of `{name}`",
                expected="at least one epoch of each model",
                remedy="Leave the model out, or train it first.",
            )
    colours = colours_of(histories)
    figure = new_figure(10, 4.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for name, records in histories.items():
        _draw(loss_axes, name, records, "loss", colours[name])
        _draw(accuracy_axes, name, records, "accuracy", colours[name])
    loss_axes.set_ylabel("cross-entropy (nats)")
    loss_axes.set_ylim(bottom=0)
    accuracy_axes.set_ylabel("accuracy")
    accuracy_axes.yaxis.set_major_formatter(percent)
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        tidy(axes)
    # The legend is below both pictures, where it hides no curve.
    lines, names = accuracy_axes.get_legend_handles_labels()
    legend_below(figure, lines, names)
    return to_png(figure, title)


def _draw(axes: Any, name: str, records: Sequence[EpochRecord], quantity: str, colour: str) -> None:
    epochs = [record.epoch for record in records]
    valid = [getattr(record, f"valid_{quantity}") for record in records]
    train = [getattr(record, f"train_{quantity}") for record in records]
    label = literal(name)
    axes.plot(
        epochs, valid, color=colour, linewidth=2, marker="o", markersize=3.5, label=f"{label}, validation"
    )
    axes.plot(
        epochs, train, color=colour, linewidth=1.3, linestyle="--", alpha=0.7, label=f"{label}, training"
    )
    best = min(range(len(records)), key=lambda index: records[index].valid_loss)
    axes.plot(
        epochs[best],
        valid[best],
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=colour,
        markeredgewidth=1.6,
        linestyle="none",
    )
