"""The picture of a full turn: how often the answer stays, and how far the logits move."""

from __future__ import annotations

from collections.abc import Mapping
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
    from eq_aimet.experiments.pictures.stability import Stability

__all__ = ["plot_stability"]

_DASHES = ("-", (0, (3, 1.5)), (0, (1, 1)))


def plot_stability(stabilities: Mapping[str, Mapping[str, Stability]], *, title: str = "") -> bytes:
    """Return a PNG with the share of unchanged predictions and the change of the logits over a full turn.

    Each model has a colour, and each precision a dash. Heavy vertical lines mark the multiples of 90°, which
    only move pixels. Faint lines mark the odd multiples of 45°.

    Args:
        stabilities: The stabilities by the model's name and the precision's name, at most three precisions
            each: `{"equivariant": {"FP32": …, "INT8": …}}`.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: There is no stability, or there are too many models or precisions.

    Example:
        >>> from eq_aimet.experiments.pictures import Stability
        >>> steady = Stability((0.0, 90.0, 180.0, 270.0), (1.0,) * 4, (0.0,) * 4, images=8)
        >>> plot_stability({"equivariant": {"FP32": steady}})[1:4]
        b'PNG'
    """
    colours = colours_of(stabilities)
    _check(stabilities)
    figure = new_figure(10, 6.4)
    agreement_axes, change_axes = figure.subplots(2, 1, sharex=True)
    for model, precisions in stabilities.items():
        for (precision, found), dash in zip(precisions.items(), _DASHES, strict=False):
            angles = [*found.angles, 360.0]  # the same as 0°
            look = {"color": colours[model], "linestyle": dash, "linewidth": 1.8}
            label = literal(f"{model} {precision}")
            agreement_axes.plot(angles, [*found.agreement, found.agreement[0]], label=label, **look)
            change_axes.plot(angles, [*found.logit_change, found.logit_change[0]], **look)
    agreement_axes.set_ylabel("same prediction as at 0°")
    agreement_axes.set_ylim(top=1.0 + 0.04 * (1.0 - agreement_axes.get_ylim()[0]))
    change_axes.set_ylabel("mean change of a logit\n(relative to the mean logit)")
    change_axes.set_ylim(bottom=0.0)
    change_axes.set_xlabel("turn of the image")
    for axes in (agreement_axes, change_axes):
        axes.yaxis.set_major_formatter(percent)
        tidy(axes, grid="y")
        _mark_turns(axes)
    handles, labels = agreement_axes.get_legend_handles_labels()
    legend_below(figure, handles, labels)
    return to_png(figure, title)


def _mark_turns(axes: Any) -> None:
    axes.set_xlim(0, 360)
    axes.set_xticks(range(0, 361, 45), [f"{angle}°" for angle in range(0, 361, 45)])
    for angle in range(0, 361, 45):
        exact = angle % 90 == 0
        axes.axvline(angle, color=INK, linewidth=1.1 if exact else 0.6, alpha=0.45, zorder=0.5)


def _check(stabilities: Mapping[str, Mapping[str, Stability]]) -> None:
    for model, precisions in stabilities.items():
        if not 1 <= len(precisions) <= len(_DASHES):
            raise InvalidArgumentError(
                "stabilities",
                received=f"{len(precisions)} precisions of `{model}`",
                expected=f"1 to {len(_DASHES)} precisions of each model",
                remedy="Leave the model out, or draw a picture of its own for it.",
            )
