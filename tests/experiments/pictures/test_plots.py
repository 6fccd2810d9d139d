"""The pictures are PNGs of the size that they promise, and show what they are given."""

import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from eq_aimet import tag_blocks
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments import DeviceFigures, TableRow, plot_table
from eq_aimet.experiments.pictures import (
    Predictions,
    Stability,
    measure_weight_ranges,
    plot_examples,
    plot_layer_ranges,
    plot_range_ratios,
    plot_stability,
    plot_training,
)
from eq_aimet.experiments.pictures.figure import colours_of
from eq_aimet.experiments.table_plot import wilson_interval
from eq_aimet.experiments.training import EpochRecord

DEVICE = DeviceFigures("onnxruntime 1.20", 2_800_000, 280_000, 1.25, 1.0, ("90°",), 16, 0.0, True)
MANY = [f"model {number}" for number in range(8)]


def pixels(png):
    return imread(io.BytesIO(png))


def has_colour(png, colour):
    """Whether the picture holds pixels of the colour, e.g. #0072B2."""
    wanted = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return bool((np.abs(pixels(png)[..., :3] - wanted).max(-1) < 0.01).any())


def records(losses):
    return [EpochRecord(epoch, loss, 0.5, loss, 0.5) for epoch, loss in enumerate(losses, start=1)]


def row(name="equivariant", accuracy=0.9, error=1e-15):
    return TableRow(name, 84_908, accuracy, 0.925, error, 0.0, 0.013, 0.02, DEVICE)


def stability(agreement):
    return Stability((0.0, 90.0, 180.0, 270.0), (1.0, *agreement), (0.0, 0.1, 0.2, 0.1), images=8)


def layers(factor=1.0, channels=8, blocks=None):
    layer = torch.nn.Conv2d(1, channels, 3, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, layer.weight.numel()).reshape(layer.weight.shape))
        layer.weight[0] *= factor
    if blocks:
        tag_blocks(layer, [1], blocks)
    return measure_weight_ranges(torch.nn.Sequential(layer))


TINY = layers()
IMAGES = torch.linspace(0, 1, 3 * 3 * 9 * 9).reshape(3, 3, 9, 9)
RIGHT, WRONG = (Predictions((found, 1, 0), (0.9, 0.8, 0.7), (0, 1, 0)) for found in (0, 1))

# Each picture out of two data sets, and its size in pixels.
PICTURES = {
    "training": (
        lambda falling: plot_training({"a": records([0.9, 0.1] if falling else [0.1, 0.9])}),
        (1500, 630),
    ),
    "accuracy": (lambda first: plot_table([row(accuracy=0.9 if first else 0.91)]), (1500, 405)),
    "error": (lambda first: plot_table([row(error=1e-15 if first else 1e-3)]), (1500, 405)),
    "stability": (
        lambda first: plot_stability({"a": {"INT8": stability([1.0 if first else 0.5] * 3)}}),
        (1500, 960),
    ),
    "layer": (lambda first: plot_layer_ranges(TINY[0], layers(1.0 if first else 9.0)[0]), (1500, 900)),
    "blocks": (
        lambda first: plot_layer_ranges(*2 * layers(blocks=(4, 4) if first else (2, 6))),
        (1500, 900),
    ),
    "ratios": (lambda first: plot_range_ratios(TINY, layers(1.0 if first else 9.0)), (1200, 270)),
    "answer": (lambda first: plot_examples(IMAGES, {"a": RIGHT if first else WRONG}), (774, 291)),
    "image": (lambda first: plot_examples(IMAGES if first else 1 - IMAGES, {"a": RIGHT}), (774, 291)),
    "title": (lambda first: plot_training({"a": records([0.9])}, title="A" if first else "B"), (1500, 630)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_its_size_and_shows_its_data(name):
    draw, (width, height) = PICTURES[name]
    first, second = draw(True), draw(False)
    assert pixels(first).shape == pixels(second).shape == (height, width, 4)
    assert (pixels(first) != pixels(second)).any()
    assert draw(True) == first


def test_an_overview_grows_with_the_model():
    model = torch.nn.Sequential(*(torch.nn.Conv2d(2, 2, 1) for _ in range(40)))
    ranges = measure_weight_ranges(model)
    assert pixels(plot_range_ratios(ranges, ranges)).shape[0] == round(150 * (1.6 + 0.2 * 40))


def test_neighbouring_blocks_have_different_shades():
    (plain,), (tagged,) = layers(), layers(blocks=(4, 4))
    assert has_colour(plot_layer_ranges(plain, plain), "#0072B2")
    assert not has_colour(plot_layer_ranges(plain, plain), "#56B4E9")
    assert has_colour(plot_layer_ranges(tagged, tagged), "#0072B2")
    assert has_colour(plot_layer_ranges(tagged, tagged), "#56B4E9")


def test_weights_are_drawn_relative_to_the_largest_of_their_layer():
    layer = torch.nn.Conv2d(1, 4, 3, bias=False)
    (before,) = measure_weight_ranges(layer)
    layer.weight.data *= 8
    (after,) = measure_weight_ranges(layer)
    bars = slice(120, 420)  # the rows of the upper half, below its heading
    drawn = [pixels(plot_layer_ranges(found, found))[bars] for found in (before, after)]
    assert (drawn[0] == drawn[1]).all()
    assert has_colour(plot_layer_ranges(before, before), "#0072B2")


def test_models_keep_their_colours_in_all_pictures():
    assert colours_of(["conventional", "equivariant"]) == {
        "conventional": "#D55E00",
        "equivariant": "#0072B2",
    }
    names = ("a", "b")
    for png in (
        plot_training({name: records([0.9, 0.3 * index]) for index, name in enumerate(names)}),
        plot_stability({name: {"FP32": stability([0.5 * index] * 3)} for index, name in enumerate(names)}),
        plot_table([row(name) for name in names]),
    ):
        assert has_colour(png, "#D55E00")
        assert has_colour(png, "#0072B2")


def test_any_name_is_drawn_as_it_is():
    names = ["_b^c", "$x", "$a$ \\frac{", "<b>", "✓ ü", "x y" * 100, "a\n\n\n\nb"]
    drawn = plot_training({name: records([0.9]) for name in names}, title="".join(names))
    assert pixels(drawn).shape == (630, 1500, 4)
    plot_stability({name: {name: stability([0.5] * 3)} for name in names})
    assert has_colour(plot_stability({"_": {"": stability([1.0] * 3)}}), "#D55E00")
    plot_table([row(name) for name in names])
    plot_examples(IMAGES, dict.fromkeys(names, RIGHT), class_names=names)


def test_dead_layers_and_single_epochs_are_drawn():
    layer = torch.nn.Conv2d(1, 4, 1, bias=False)
    layer.weight.data.zero_()
    (dead,) = measure_weight_ranges(layer)
    assert pixels(plot_layer_ranges(dead, dead)).shape == (900, 1500, 4)
    assert pixels(plot_range_ratios([dead], [dead])).shape[1] == 1200
    assert pixels(plot_training({"a": records([0.5])})).shape == (630, 1500, 4)


def test_the_interval_is_wilsons():
    assert wilson_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    low, high = wilson_interval(1.0, 10)
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_training({}), "`models`: received no model; expected 1 to 7"),
        (lambda: plot_training({name: records([1.0]) for name in MANY}), "received 8; expected 1 to 7"),
        (lambda: plot_training({"a": []}), "`histories`: received no record of `a`"),
        (lambda: plot_table([]), "`models`: received no model"),
        (lambda: plot_table([row(), row()]), "`rows`: received equivariant, equivariant; .* one row a model"),
        (lambda: plot_table([row()], test_images=0), "`test_images`: received 0"),
        (lambda: plot_stability({"a": {}}), "received 0 precisions of `a`"),
        (
            lambda: plot_stability({"a": dict.fromkeys("1234", stability([1.0] * 3))}),
            "received 4 precisions of `a`",
        ),
        (lambda: plot_range_ratios([], []), "`after`: received no layer"),
        (lambda: plot_range_ratios(TINY, []), "differ from `before` in 0"),
        (lambda: plot_layer_ranges(TINY[0], layers(channels=4)[0]), "with the same channels"),
        (lambda: plot_examples(IMAGES[:, :2], {"a": RIGHT}), r"`images`: received shape \(3, 2, 9, 9\)"),
        (lambda: plot_examples(IMAGES[:2], {"a": RIGHT}), r"`predictions`: received of \[3\] images for 2"),
        (lambda: plot_examples(IMAGES, {}), "at least one model's predictions"),
        (lambda: plot_examples(IMAGES, {"a": RIGHT}, indices=[3]), r"`indices`: received \[3\]"),
        (lambda: plot_examples(IMAGES, {"a": RIGHT}, indices=[]), "at least one number from 0 to 2"),
        (lambda: plot_examples(IMAGES, {"a": RIGHT}, class_names=["one"]), "`class_names`: received 1 names"),
    ],
)
def test_what_can_not_be_drawn_is_refused(draw, message):
    with pytest.raises(InvalidArgumentError, match=message):
        draw()
