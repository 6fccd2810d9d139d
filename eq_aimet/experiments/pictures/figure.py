"""Figures without pyplot, and the colours, texts and PNG bytes that all pictures share."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from eq_aimet.errors import InvalidArgumentError

__all__ = [
    "FAINT",
    "INK",
    "SHADES",
    "colours_of",
    "legend_below",
    "literal",
    "new_figure",
    "percent",
    "tidy",
    "to_png",
]

# Okabe and Ito's colours; colour-blind readers can tell them apart.
_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SHADES = ("#0072B2", "#56B4E9")  # of neighbouring blocks
INK = "#333333"
FAINT = "#E5E5E5"

_DPI = 150


def new_figure(width: float, height: float) -> Any:
    """Return a matplotlib figure of that size in inches; it needs no window system and no global state.

    A PNG of it has 150 pixels an inch.

    Example:
        >>> new_figure(4, 2).get_size_inches().tolist()
        [4.0, 2.0]
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any, *, grid: str = "both") -> None:
    """Give the axes, in place, a faint grid below the data and no frame above and to the right."""
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def percent(share: float, _: object = None) -> str:
    """Return a share from 0 to 1 as text; also for the ticks of an axis.

    Example:
        >>> percent(0.925)
        '92.5 %'
    """
    return f"{round(100 * share, 6):g} %"


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each model, the same for the same order of models in every picture.

    Raises:
        InvalidArgumentError: There is no model, or there are more models than colours.

    Example:
        >>> colours_of(["conventional", "equivariant"])
        {'conventional': '#D55E00', 'equivariant': '#0072B2'}
    """
    listed = list(names)
    if not 1 <= len(listed) <= len(_COLOURS):
        raise InvalidArgumentError(
            "models",
            received=len(listed) or "no model",
            expected=f"1 to {len(_COLOURS)} models in a picture",
            remedy="Draw several pictures, one for each group of models.",
        )
    return dict(zip(listed, _COLOURS, strict=False))


def legend_below(figure: Any, marks: Sequence[Any], names: Sequence[str]) -> None:
    """Put a legend below the figure, in place, in up to four columns."""
    letters = max(len(name) for name in names) + 6  # with the mark
    room = int(figure.get_figwidth() * 12)  # letters in a line
    figure.legend(
        marks,
        names,
        loc="outside lower center",
        ncols=max(1, min(4, len(names), room // letters)),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def to_png(figure: Any, title: str = "") -> bytes:
    """Return the figure as the content of a PNG file, with the title above it."""
    if title:
        figure.suptitle(literal(title, 100), fontsize=12, color=INK)
    content = io.BytesIO()
    # Without matplotlib's version in the file, the same data give the same bytes.
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def literal(text: str, letters: int = 40) -> str:
    """Return the text as one line for a picture, shortened to `letters` letters.

    Dollars are escaped, since matplotlib reads the text between two dollars as a formula.

    Example:
        >>> literal("a  long  name"), literal("a long name", letters=6)
        ('a long name', 'a lon…')
    """
    line = " ".join(text.split())
    short = line if len(line) <= letters else f"{line[: letters - 1]}…"
    shown = f" {short}" if short.startswith("_") else short  # legends leave out a text that starts with _
    return shown.replace("$", r"\$")
