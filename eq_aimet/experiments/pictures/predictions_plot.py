"""The picture of examples: images with each model's answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.figure import INK, literal, new_figure, to_png

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.pictures.predictions import Predictions

__all__ = ["plot_examples"]

_RIGHT, _WRONG = "#007A5A", "#C24A00"  # dark enough for small print
_COLUMNS = 6
_LETTERS = 26  # of a line below a patch


def plot_examples(
    images: torch.Tensor,
    predictions: Mapping[str, Predictions],
    *,
    indices: Sequence[int] | None = None,
    class_names: Sequence[str] = (),
    title: str = "",
) -> bytes:
    """Return a PNG with images, the class of each, and each model's answer with its probability.

    The circle shows the part that networks with a circular mask see.

    Args:
        images: The images, (batch, channels, H, W), of 1 or 3 channels with values from 0 to 1.
        predictions: The predictions on these images, by the model's name.
        indices: The indices of the images to show, see `choose_examples`; by default the first twelve.
        class_names: The names of the classes in order; by default their numbers.
        title: The text above the picture.

    Raises:
        InvalidArgumentError: Images, predictions and indices do not fit each other.

    Example:
        >>> import torch
        >>> from eq_aimet.experiments.pictures import Predictions
        >>> plot_examples(torch.rand(1, 3, 9, 9), {"a": Predictions((1,), (0.9,), (0,))})[1:4]
        b'PNG'
    """
    shown = list(range(min(12, len(images)))) if indices is None else list(indices)
    labels = _check(images, predictions, shown, class_names)
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(1.72 * columns, 3.4), rows * (1.78 + 0.16 * len(predictions)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        _draw_image(axes, images[index])
        axes.set_title(_class_name(labels[index], class_names), fontsize=10, color=INK, pad=4)
        for line, (name, found) in enumerate(predictions.items()):
            _write_answer(axes, line, name, found, index, class_names)
    return to_png(figure, title)


def _draw_image(axes: Any, image: torch.Tensor) -> None:
    from matplotlib.patches import Ellipse

    # [channels, H, W] -> [H, W, channels]
    pixels = image.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    height, width = pixels.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    axes.add_patch(Ellipse(centre, width, height, fill=False, edgecolor="white", linewidth=1, alpha=0.8))


def _write_answer(
    axes: Any, line: int, name: str, found: Predictions, index: int, class_names: Sequence[str]
) -> None:
    right = found.classes[index] == found.labels[index]
    mark = "✓" if right else "✗"
    # With two classes the mark tells the class.
    said = "" if right or len(class_names) == 2 else f" {_class_name(found.classes[index], class_names)}"
    percent = f"{100 * found.probabilities[index]:.0f} %"
    room = _LETTERS - len(percent) - len(said) - 3
    axes.annotate(
        f"{mark} {literal(name, max(room, 4))}{said} {percent}",
        (0.5, 0),
        (0, -3 - 11.5 * line),
        "axes fraction",
        "offset points",
        ha="center",
        va="top",
        fontsize=8,
        color=_RIGHT if right else _WRONG,
    )


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return literal(class_names[label], 12) if class_names else f"class {label}"


def _largest_class(predictions: Mapping[str, Predictions]) -> int:
    return max(max(*found.classes, *found.labels) for found in predictions.values())


def _check(
    images: torch.Tensor,
    predictions: Mapping[str, Predictions],
    shown: Sequence[int],
    class_names: Sequence[str],
) -> tuple[int, ...]:
    """Return the labels of all images after checking that the arguments agree."""
    lengths = {len(found.labels) for found in predictions.values()}
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        argument, received = "images", f"shape {tuple(images.shape)}"
        expected, remedy = "images of 1 or 3 channels, (batch, channels, H, W)", "Convert them to RGB first."
    elif lengths != {len(images)}:
        argument, received = "predictions", f"of {sorted(lengths)} images for {len(images)}"
        expected = "at least one model's predictions on these very images"
        remedy = "Measure them with `measure_predictions` on the same images."
    elif not shown or not all(0 <= index < len(images) for index in shown):
        argument, received = "indices", repr(list(shown))
        expected = f"at least one number from 0 to {len(images) - 1}"
        remedy = "Choose them with `choose_examples`."
    elif class_names and len(class_names) <= _largest_class(predictions):
        argument, received = "class_names", f"{len(class_names)} names"
        expected, remedy = "a name for each class", "Leave them out to see the classes' numbers."
    else:
        return next(iter(predictions.values())).labels
    raise InvalidArgumentError(argument, received=received, expected=expected, remedy=remedy)
