"""Judging models of several inputs and outputs, and models whose own code fails."""

import json
import math
from collections import namedtuple

import pytest
import torch

from eq_aimet.errors import EquivarianceError, ForwardError, InvalidArgumentError
from eq_aimet.symmetry import assert_equivariant, equivariance_error
from eq_aimet.symmetry.elements import Element

Pair = namedtuple("Pair", ["total", "maps"])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class Calls(torch.nn.Module):
    """Calls a function as its forward."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def gradient(x: torch.Tensor) -> torch.Tensor:
    """Return the mean gradient of each image, a vector (right, up) that turns with the image."""
    ramp = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    return torch.stack([(x * ramp).mean((1, 2, 3)), -(x * ramp[:, None]).mean((1, 2, 3))], 1)


def turn_vectors(output: torch.Tensor, element: Element) -> torch.Tensor:
    angle = math.radians(element.angle)
    turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return output @ output.new_tensor(turn).T


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (lambda x: x.mean((1, 2, 3)), ["output"]),
        (lambda x: (x, x.sum()), ["0", "1"]),
        (lambda x: {"a": x, "b": (x, {"c": x})}, ["a", "b.0", "b.1.c"]),
        (lambda x: Pair(x.sum(), x), ["total", "maps"]),
        (lambda x: {"logits": x.sum(), "loss": None}, ["logits"]),
    ],
)
def test_every_output_is_judged_by_its_name(outputs, names, images):
    report = equivariance_error(Calls(outputs), images)
    assert list(report.outputs) == names
    assert report.worst < 1e-12


def test_each_output_is_judged_by_its_own_action(images):
    model = Calls(lambda x: {"mean": x.mean((1, 2, 3)), "gradient": gradient(x), "maps": x})

    def act(output, element, name):
        if name == "gradient":
            return turn_vectors(output, element)
        return element.turn(output) if name == "maps" else output

    assert_equivariant(model, images, transform_output=act)
    report = equivariance_error(model, images)
    assert report.worst_output == "gradient"
    assert {change.output for change in report.changes if change.error > 1e-3} == {"gradient"}
    with pytest.raises(EquivarianceError, match="the output 'gradient' changes by"):
        assert_equivariant(model, images)


def test_an_action_for_all_outputs_alike_takes_two_arguments(images):
    def act(output, element, sign=1.0):
        return sign * turn_vectors(output, element)

    assert_equivariant(Calls(lambda x: (gradient(x), 2 * gradient(x))), images, transform_output=act)


def test_each_output_is_compared_with_its_own_size(images):
    model = Calls(lambda x: (1e6 * x.mean((1, 2, 3)), 1e-6 * gradient(x)))
    assert equivariance_error(model, images).worst > 0.1


def test_a_wrong_output_among_right_ones_is_named(images):
    report = equivariance_error(Calls(lambda x: (x.amax((-1, -2)), x.flatten(1))), images)
    assert report.worst_output == "1"
    lines = str(report).splitlines()
    assert lines[0].split() == ["element", "output", "relative", "change"]
    assert lines[2].split()[:2] == ["90°", "1"]
    values = json.loads(json.dumps(report.to_dict()))
    assert values["outputs"]["0"] == {"90°": 0.0, "180°": 0.0, "270°": 0.0}
    assert values["worst"] == max(values["outputs"]["1"].values()) == report.worst


@pytest.mark.parametrize("container", [tuple, list])
def test_several_inputs_by_position(container, images):
    model = Calls(lambda x, y: {"sum": (x + y, [x.amax((-1, -2))]), "difference": x - y})
    assert_equivariant(model, container((images, images.flip(1))))


def test_inputs_by_name(images):
    model = Calls(lambda *, image, other: image - other)
    assert_equivariant(model, {"other": images.flip(1), "image": images})


def test_vectors_and_indices_beside_images_stay_as_they_are(images):
    scale, index = torch.rand(2, 3), torch.tensor([2, 0])
    model = Calls(lambda x, scale, index: (x * scale[..., None, None], x[:, index]))
    assert_equivariant(model, (images, scale, index))


def test_images_in_time_turn_one_by_one():
    clips = torch.randn(2, 4, 3, 9, 9)
    assert_equivariant(Calls(lambda x: x.mean(1)), clips)
    assert_equivariant(Calls(lambda x: x.cumsum(1)), clips)
    smooth = torch.ones(1, 2, 3, 9, 9)
    assert equivariance_error(Calls(lambda x: x.mean((-1, -2))), smooth, elements=[45]).worst < 1e-12


def test_integers_and_booleans_are_compared(images):
    counts = Calls(lambda x: ((x > 0).sum((-1, -2)), (x > 0).any(-1).any(-1)))
    assert_equivariant(counts, images, tolerance=0.0)
    assert equivariance_error(Calls(lambda x: x.flatten(1).argmax(1)), images).worst > 0.0


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (
            lambda x: x @ torch.ones(3, 4),
            r"raised RuntimeError on the unturned inputs of shape \(2, 3, 9",
        ),
        (lambda x: {}["key"], "raised KeyError on the unturned inputs"),
        (lambda x: "text", "returned a str without a tensor"),
        (lambda x: x * math.nan, "returned NaN or infinite values on the unturned inputs"),
        (lambda x: {"a": x, "b": x / 0.0}, "returned NaN .* on the unturned inputs, in its output 'b'"),
    ],
)
def test_faults_of_the_model_name_its_forward(function, text, images):
    with pytest.raises(ForwardError, match=f"`forward` of Calls {text}") as caught:
        equivariance_error(Calls(function), images)
    assert "`inputs`" not in str(caught.value)


def test_a_fault_that_only_a_turned_image_meets_says_so(images):
    first = images.double().clone()

    def only_unturned(x):
        return x if torch.equal(x, first) else x * math.nan

    with pytest.raises(ForwardError, match="NaN or infinite values on the inputs turned by 90°"):
        equivariance_error(Calls(only_unturned), images)


def test_a_path_that_only_a_turned_image_takes_is_named(images):
    first = images.double().clone()
    model = Calls(lambda x: (x,) if torch.equal(x, first) else (x, x))
    with pytest.raises(EquivarianceError, match=r"Under 90° the model returns the outputs"):
        equivariance_error(model, images)


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        ("turn", "a str"),
        (lambda a, b, c, d: a, "a function of 4 arguments"),
        (lambda output, element: None, "a function that returns a NoneType for the output 'output'"),
        (lambda output, element: output @ output, "a function that raises RuntimeError"),
    ],
)
def test_unfit_transforms_are_named(transform, text, images):
    model = Calls(lambda x: x.mean((-1, -2)))
    with pytest.raises(InvalidArgumentError, match=f"`transform_output`: received {text}"):
        equivariance_error(model, images, transform_output=transform)
