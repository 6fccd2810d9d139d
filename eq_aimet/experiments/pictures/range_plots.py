"""The pictures of weight ranges: one layer channel by channel, and all layers of a model.

After figures 2 and 6 of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.figure import INK, SHADES, literal, new_figure, tidy, to_png

if TYPE_CHECKING:
    from eq_aimet.experiments.pictures.weight_ranges import LayerRanges

__all__ = ["plot_layer_ranges", "plot_range_ratios"]

_BEFORE, _AFTER = "#D55E00", "#0072B2"
_LABELLED_BLOCKS = 40  # more numbers would touch each other


def plot_layer_ranges(before: LayerRanges, after: LayerRanges, *, title: str = "") -> bytes:
    """Return a PNG with the weights of each output channel of a layer, before and after equalization.

    A light bar reaches from the smallest to the largest weight, a dark one from the lower to the upper
    quartile, and a white dash is the median. Weights are relative to the layer's largest magnitude, so that
    the height of the picture is the range of one INT8 encoding of the whole layer. Neighbouring rotation
    blocks have different shades.

    Args:
        before: The layer with its batch norm folded.
        after: The same layer, equalized.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: `before` and `after` are different layers.

    Example:
        >>> import torch
        >>> from eq_aimet.experiments.pictures import measure_weight_ranges
        >>> (layer,) = measure_weight_ranges(torch.nn.Conv2d(3, 8, 3))
        >>> plot_layer_ranges(layer, layer)[1:4]
        b'PNG'
    """
    _check_pair([before], [after])
    figure = new_figure(10, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, layer, when in ((upper, before, "before"), (lower, after, "after")):
        _draw_channels(axes, layer)
        spread = f"largest channel {layer.ratio:,.3g}× the smallest"
        dead = f", {layer.dead} dead" if layer.dead else ""
        axes.set_title(
            f"{when} equalization: {spread}{dead}; largest weight {layer.largest:.3g}",
            fontsize=10,
            color=INK,
            loc="left",
        )
    count = len(before.ranges)
    upper.set_xlim(-0.5, count - 0.5)
    upper.set_ylim(-1.14, 1.05)
    lower.set_xlabel(f"output channel{_describe_blocks(before.blocks)}")
    figure.supylabel("weight, relative to the layer's largest", fontsize=10, color=INK)
    return to_png(figure, title or f"{before.name}, {before.kind}")


def plot_range_ratios(
    before: Sequence[LayerRanges], after: Sequence[LayerRanges], *, title: str = ""
) -> bytes:
    """Return a PNG with the ratio of the largest to the smallest channel range of each layer.

    The ratios leave out dead channels. The height of the picture grows with the number of layers.

    Args:
        before: The layers with their batch norms folded.
        after: The same layers, equalized.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: There is no layer, or `before` and `after` are different layers.

    Example:
        >>> import torch
        >>> from eq_aimet.experiments.pictures import measure_weight_ranges
        >>> layers = measure_weight_ranges(torch.nn.Conv2d(3, 8, 3))
        >>> plot_range_ratios(layers, layers)[1:4]
        b'PNG'
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    _check_pair(before, after)
    figure = new_figure(8, 1.6 + 0.2 * len(before))
    axes = figure.subplots()
    places = range(len(before))
    first, second = ([layer.ratio for layer in layers] for layers in (before, after))
    axes.hlines(places, first, second, color="#BBBBBB", linewidth=1.6)
    axes.plot(first, places, "o", color=_BEFORE, markerfacecolor="white", markeredgewidth=1.6, label="before")
    axes.plot(second, places, "o", color=_AFTER, label="after")
    axes.set_yticks(
        places, [f"{literal(layer.name or 'the model')}  {layer.kind}" for layer in before], fontsize=8
    )
    axes.set_ylim(len(before) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(left=0.93)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:,g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("largest channel range over the smallest")
    tidy(axes)
    axes.tick_params(axis="y", labelsize=8, length=0)
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return to_png(figure, title)


def _draw_channels(axes: Any, layer: LayerRanges) -> None:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    scale = layer.largest or 1.0
    width = 0.8 if len(layer.ranges) <= 128 else 1.0  # gaps of less than two pixels flicker
    channels = np.arange(len(layer.ranges))
    blocks = layer.blocks or (len(channels),)
    block_of_channel = np.repeat(np.arange(len(blocks)), blocks)
    shades = np.array([to_rgba(shade) for shade in SHADES])[block_of_channel % 2]
    light = shades * [1, 1, 1, 0.45]
    smallest, low, middle, high, largest = (
        np.array(line) / scale
        for line in (layer.minimum, layer.lower_quartile, layer.median, layer.upper_quartile, layer.maximum)
    )
    for bottom, top, colours in ((smallest, largest, light), (low, high, shades)):
        left, right = channels - width / 2, channels + width / 2
        corners = np.array(
            [(left, bottom), (left, top), (right, top), (right, bottom)]
        )  # [corner, x or y, channel]
        axes.add_collection(PolyCollection(corners.transpose(2, 0, 1), facecolors=colours, linewidth=0))
    axes.hlines(middle, channels - width / 2, channels + width / 2, color="white", linewidth=1)
    tidy(axes, grid="y")
    axes.axhline(0, color=INK, linewidth=0.6)
    for start, size in zip(np.cumsum((0, *blocks[:-1])), blocks, strict=True):
        if layer.blocks is not None and size > 1:
            _bracket(axes, int(start), size)


def _bracket(axes: Any, start: int, size: int) -> None:
    """Draw a line below the channels of one block."""
    axes.plot(
        (start - 0.3, start + size - 0.7),
        (-1.07, -1.07),
        color=INK,
        linewidth=1.2,
        solid_capstyle="butt",
        alpha=0.7,
    )


def _describe_blocks(blocks: tuple[int, ...] | None) -> str:
    sizes = sorted(set(blocks or ()) - {1})
    if not sizes:
        return ""
    return f"; a line below and a shade for each rotation block of {' or '.join(map(str, sizes))}"


def _check_pair(before: Sequence[LayerRanges], after: Sequence[LayerRanges]) -> None:
    pairs = [(layer.name, len(layer.ranges)) for layer in before]
    others = [(layer.name, len(layer.ranges)) for layer in after]
    if pairs and pairs == others:
        return
    differing = sorted({name for name, _ in set(pairs) ^ set(others)})
    raise InvalidArgumentError(
        "after",
        received=f"layers that differ from `before` in {', '.join(differing[:5])}"
        if differing
        else "no layer",
        expected="the same layers as in `before`, in the same order, with the same channels",
        remedy="Measure the same model before and after; equalization changes no name.",
    )
