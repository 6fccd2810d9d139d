"""The sections of a run's report: each has pictures, a text that explains them, and their figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eq_aimet.experiments.pictures.html_report import Picture, Section
from eq_aimet.experiments.pictures.predictions import choose_examples
from eq_aimet.experiments.pictures.predictions_plot import plot_examples
from eq_aimet.experiments.pictures.range_plots import plot_layer_ranges, plot_range_ratios
from eq_aimet.experiments.pictures.stability_plot import plot_stability
from eq_aimet.experiments.pictures.training_curves import plot_training
from eq_aimet.experiments.pictures.weight_ranges import most_uneven_layer
from eq_aimet.experiments.run_table import file_table, network_table
from eq_aimet.experiments.table_plot import plot_table
from eq_aimet.experiments.tables import Table

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.pictures.predictions import Predictions
    from eq_aimet.experiments.pictures.stability import Stability
    from eq_aimet.experiments.pictures.weight_ranges import LayerRanges
    from eq_aimet.experiments.run_table import TableRow
    from eq_aimet.experiments.training.history import EpochRecord

__all__ = [
    "NamedSection",
    "example_section",
    "range_section",
    "stability_section",
    "table_section",
    "training_section",
]

_EXAMPLES = 12

NamedSection = tuple[Section, tuple[str, ...]]
"""A section, and the file names of its pictures in order, without the file extension."""


def table_section(rows: Sequence[TableRow], test_images: int | None, notes: Sequence[str]) -> NamedSection:
    """Return the section with the tables of the run, and a picture of the first table."""
    tables = (
        network_table(rows, caption="The networks"),
        file_table(rows, caption=f"The files, in {rows[0].device.runtime}", notes=notes),
    )
    interval = (
        ""
        if test_images is None
        else f" The lines are the 95 % intervals that {test_images:,} test images leave open:"
        " models whose lines overlap much are not to be told apart."
    )
    picture = Picture(
        plot_table(rows, test_images=test_images),
        "Accuracy and rotation error of each model in FP32 and INT8; the figures are in the table above.",
        "Left: test accuracy. Right: the worst relative change of the logits when images are turned, on a "
        f"logarithmic axis that starts with 0. Hollow marks are FP32, filled ones INT8.{interval}",
    )
    return Section("Accuracy and rotation error", tables=tables, pictures=(picture,)), ("table",)


def stability_section(stabilities: Mapping[str, Mapping[str, Stability]]) -> NamedSection:
    """Return the section on how predictions and logits change over a full turn of the images."""
    rows = tuple(
        (model, precision, *_turn_cells(found))
        for model, precisions in stabilities.items()
        for precision, found in precisions.items()
    )
    headings = ("model", "precision", "multiples of 90°", "odd multiples of 45°", "worst angle")
    caption = "Share of images with an unchanged prediction: the lowest among these angles"
    images = max(found.images for precisions in stabilities.values() for found in precisions.values())
    picture = Picture(
        plot_stability(stabilities),
        "Share of unchanged predictions and mean change of the logits at each angle of a full turn.",
        "Above: the share of images whose predicted class is that at 0°; the axis does not start at 0. "
        "Below: the mean change of a logit, relative to the mean magnitude of the logits at 0°. Heavy "
        "vertical lines are the turns by multiples of 90°, which move pixels without changing them; all "
        "other angles interpolate, which alone changes the image a little.",
    )
    text = (
        f"Test images ({images:,} of them), masked to their inscribed circle, make a full turn. "
        "A network that is invariant under a turn gives the same answer after it."
    )
    section = Section(
        "Prediction stability over a full turn", text, (Table(headings, rows, caption),), (picture,)
    )
    return section, ("stability",)


def range_section(
    ranges: Mapping[str, tuple[Sequence[LayerRanges], Sequence[LayerRanges]]],
) -> NamedSection:
    """Return the section on the weights of each model before and after equalization."""
    pictures, names = [], []
    for model, (before, after) in ranges.items():
        file_name = re.sub(r"[^A-Za-z0-9_-]+", "-", model)
        pictures += [_detail(model, before, after), _overview(model, before, after)]
        names += [f"weights-{file_name}", f"ranges-{file_name}"]
    text = (
        "Batch norms are folded on both sides, so the picture shows the weights that are quantized. "
        "Equalization moves scale from one layer to the next without changing the function; the ranges "
        "of one layer may become less even, and those of the next layer more even. A rotation block has one "
        "scale, so the channels within a block may still differ."
    )
    return Section("Weight ranges before and after equalization", text, pictures=tuple(pictures)), tuple(
        names
    )


def example_section(
    images: torch.Tensor, predictions: Mapping[str, Predictions], class_names: Sequence[str]
) -> NamedSection:
    """Return the section with example images and the models' predictions."""
    shown = choose_examples(predictions, _EXAMPLES)
    wrong = sum(not all(found.right[index] for found in predictions.values()) for index in shown)
    count = len(images)
    table = Table(
        ("model", f"right, of {count:,} images"),
        tuple((name, f"{sum(found.right):,}") for name, found in predictions.items()),
    )
    picture = Picture(
        plot_examples(images, predictions, indices=shown, class_names=class_names),
        "Example images with their class, and each model's answer with its probability.",
        "Above each image its true class; below it each model's answer, ✓ right or ✗ wrong, with the "
        "probability that the model gives it. The circle is what the networks see.",
    )
    text = (
        f"The first {len(shown) - wrong} of {count:,} images that every model classifies rightly, and the "
        f"first {wrong} that at least one does not: wrong answers are more frequent here than among all."
    )
    return Section("Examples", text, (table,), (picture,)), ("examples",)


def training_section(histories: Mapping[str, Sequence[EpochRecord]]) -> NamedSection:
    """Return the section with the training curves."""
    picture = Picture(
        plot_training(histories),
        "Loss and accuracy of each model over the epochs.",
        "Solid: validation; dashed: training, on augmented images while they are being learnt. The ring is "
        "the epoch whose weights are kept, that of the lowest validation loss.",
    )
    return Section("Training", pictures=(picture,)), ("training",)


def _detail(model: str, before: Sequence[LayerRanges], after: Sequence[LayerRanges]) -> Picture:
    shown = most_uneven_layer(before)
    old, new = next(pair for pair in zip(before, after, strict=True) if pair[0].name == shown)
    which = "depthwise layer" if old.kind == "depthwise" else "layer"
    return Picture(
        plot_layer_ranges(old, new, title=f"{model}: {shown}, {old.kind}"),
        f"Weights of each output channel of layer {shown} of the {model} model, before and after.",
        f"{model}: {shown}, the {which} whose channels differ most before equalization, of those narrow "
        "enough to see each. Light: from the smallest to the largest weight of a channel; dark: the middle "
        "half; white: the median. The height of the picture is what one INT8 range of the whole layer spans, "
        "so that a flat channel is left with few of its steps.",
    )


def _overview(model: str, before: Sequence[LayerRanges], after: Sequence[LayerRanges]) -> Picture:
    return Picture(
        plot_range_ratios(before, after, title=model),
        f"Ratio of the largest to the smallest channel range in each layer of the {model} model.",
        f"{model}: how many times a layer's smallest channel range its largest is, before and after "
        "equalization, from input to output. Channels whose weights are all zero are left out.",
        width=800,
    )


def _turn_cells(found: Stability) -> tuple[str, str, str]:
    """Return the lowest agreement at the quarter turns, at the odd multiples of 45°, and at all angles."""
    shares = dict(zip(found.angles, found.agreement, strict=True))
    quarters = [share for angle, share in shares.items() if angle and angle % 90 == 0]
    eighths = [share for angle, share in shares.items() if angle % 90 == 45]
    worst = min(shares, key=lambda angle: shares[angle])
    return (
        _percent(min(quarters)),
        _percent(min(eighths)) if eighths else "not measured",
        f"{_percent(shares[worst])} ({worst:g}°)",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
