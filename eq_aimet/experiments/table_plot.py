"""The paper's table as a picture: accuracy and rotation error of each model in FP32 and INT8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.figure import (
    INK,
    colours_of,
    legend_below,
    literal,
    new_figure,
    percent,
    tidy,
    to_png,
)

if TYPE_CHECKING:
    from eq_aimet.experiments.run_table import TableRow

__all__ = ["plot_table"]

_TURNS = ((-0.22, 90), (0.22, 45))  # the offset of a model's mark, and the angle
_ZERO = 1e-18  # where an error of exactly 0 is drawn on the logarithmic axis


def plot_table(rows: Sequence[TableRow], *, test_images: int | None = None, title: str = "") -> bytes:
    """Return a PNG with the accuracy and the rotation errors of each model, in FP32 and in INT8.

    Hollow marks are FP32, and filled marks are INT8.

    Args:
        rows: The measurements of each model, at most seven models.
        test_images: The number of test images. If it is given, bars show Wilson's 95 % interval of the
            accuracy.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: There is no row, there are too many rows, two rows have the same name, or
            `test_images` is below 1.

    Example:
        >>> from eq_aimet.experiments import DeviceFigures, TableRow
        >>> device = DeviceFigures("onnxruntime", 2_800_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02, device)
        >>> plot_table([row], test_images=364)[1:4]
        b'PNG'
    """
    names = [row.model for row in rows]
    if len(set(names)) != len(names):
        raise InvalidArgumentError(
            "rows", received=", ".join(names), expected="one row a model", remedy="Give each its own name."
        )
    if test_images is not None and test_images < 1:
        raise InvalidArgumentError(
            "test_images",
            received=test_images,
            expected="at least 1",
            remedy="Leave it out to draw no interval.",
        )
    colours = colours_of(names)
    figure = new_figure(10, 1.9 + 0.8 * len(rows))
    accuracy_axes, error_axes = figure.subplots(1, 2, width_ratios=(1, 1.3))
    for place, row in enumerate(rows):
        colour = colours[row.model]
        for offset, accuracy, filled in ((-0.13, row.fp32_accuracy, False), (0.13, row.int8_accuracy, True)):
            _draw_accuracy(accuracy_axes, place + offset, accuracy, colour, filled, test_images)
        for offset, error, filled in (
            (-0.31, row.fp32_error_90, False),
            (-0.13, row.int8_error_90, True),
            (0.13, row.fp32_error_45, False),
            (0.31, row.int8_error_45, True),
        ):
            _mark(error_axes, max(error, _ZERO), place + offset, colour, filled)
    _finish(accuracy_axes, error_axes, [literal(name) for name in names], test_images)
    hollow, full = (_mark(accuracy_axes, math.nan, 0.0, INK, filled) for filled in (False, True))
    legend_below(figure, [hollow, full], ["FP32", "INT8"])
    return to_png(figure, title)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a probability, given the share of successes in `count` trials.

    Example:
        >>> low, high = wilson_interval(0.9, 100)
        >>> round(low, 3), round(high, 3)
        (0.826, 0.945)
    """
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return centre - half, centre + half


def _draw_accuracy(
    axes: Any, place: float, accuracy: float, colour: str, filled: bool, test_images: int | None
) -> None:
    if test_images is not None:
        axes.plot(
            wilson_interval(accuracy, test_images), (place, place), color=colour, linewidth=1.2, alpha=0.6
        )
    _mark(axes, accuracy, place, colour, filled)
    axes.annotate(
        f"{100 * accuracy:.1f} %",
        (1, place),
        (8, 0),
        ("axes fraction", "data"),
        "offset points",
        va="center",
        fontsize=9,
        color=INK,
    )


def _mark(axes: Any, x: float, y: float, colour: str, filled: bool) -> Any:
    (mark,) = axes.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        markersize=8,
        markeredgewidth=1.8,
        markeredgecolor=colour,
        markerfacecolor=colour if filled else "white",
        clip_on=False,
        zorder=3,
    )
    return mark


def _finish(accuracy_axes: Any, error_axes: Any, names: list[str], test_images: int | None) -> None:
    for axes in (accuracy_axes, error_axes):
        axes.set_ylim(len(names) - 0.5, -0.5)
        tidy(axes, grid="x")
        for boundary in range(1, len(names)):
            axes.axhline(boundary - 0.5, color=INK, linewidth=0.5, alpha=0.3)
    accuracy_axes.set_yticks(range(len(names)), names)
    accuracy_axes.tick_params(axis="y", labelsize=10, length=0)
    accuracy_axes.margins(x=0.12)
    accuracy_axes.xaxis.set_major_formatter(percent)
    interval = "" if test_images is None else f", 95 % interval of {test_images:,} images"
    accuracy_axes.set_xlabel(f"test accuracy{interval}")
    turns = {place + offset: f"turn by {angle}°" for place in range(len(names)) for offset, angle in _TURNS}
    error_axes.set_yticks(list(turns), list(turns.values()))
    error_axes.tick_params(axis="y", length=0)
    error_axes.set_xscale("log")
    error_axes.set_xlim(_ZERO, max(10, 3 * error_axes.dataLim.xmax))
    error_axes.set_xticks([_ZERO, 1e-15, 1e-10, 1e-5, 1], ["0", "1e-15", "1e-10", "1e-5", "1"])
    error_axes.set_xticks([], minor=True)
    error_axes.set_xlabel("relative change of the logits under a turn")
