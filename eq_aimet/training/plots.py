"""Plots of a training, as PNG files' contents."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.training.history import EpochRecord

__all__ = ["plot_training"]

# Okabe and Ito's colours, which the colour-blind can tell apart too.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")
_INK = "#333333"


def plot_training(histories: Mapping[str, Sequence[EpochRecord]], *, title: str = "") -> bytes:
    """Returns a PNG with the loss and the accuracy of each model over the epochs.

    Solid lines are the validation's, dashed ones the training's. A ring marks the epoch whose weights are
    kept.

    Args:
        histories: each model's records by its name, at most four models.
        title: what is written above.

    Example:
        >>> from eq_aimet.training.history import EpochRecord
        >>> record = EpochRecord(1, train_loss=0.6, train_accuracy=0.7, valid_loss=0.5, valid_accuracy=0.8)
        >>> plot_training({"equivariant": [record]})[1:4]
        b'PNG'
    """
    # The figure without pyplot: no window system, and no state that outlives the call.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for (name, records), colour in zip(histories.items(), _COLOURS, strict=False):
        _draw(loss_axes, name, records, "loss", colour)
        _draw(accuracy_axes, name, records, "accuracy", colour)
    loss_axes.set_ylabel("cross-entropy (nats)")
    loss_axes.set_ylim(bottom=0)
    accuracy_axes.set_ylabel("accuracy")
    accuracy_axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK)
    accuracy_axes.legend(loc="lower right", frameon=False, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _draw(axes: Any, name: str, records: Sequence[EpochRecord], quantity: str, colour: str) -> None:
    epochs = [record.epoch for record in records]
    valid = [getattr(record, f"valid_{quantity}") for record in records]
    train = [getattr(record, f"train_{quantity}") for record in records]
    axes.plot(
        epochs, valid, color=colour, linewidth=2, marker="o", markersize=3.5, label=f"{name}, validation"
    )
    axes.plot(
        epochs, train, color=colour, linewidth=1.3, linestyle="--", alpha=0.7, label=f"{name}, training"
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
