"""Measuring and judging equivariance on networks whose error is known."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

from eq_aimet.errors import EqAimetError, EquivarianceError, InvalidArgumentError
from eq_aimet.plain import GroupMaxPool
from eq_aimet.symmetry import (
    Action,
    assert_equivariant,
    equivariance_error,
    regular_actions,
    symmetrize,
    tag_blocks,
)
from eq_aimet.symmetry.elements import Element, exact_elements


def c4_network(order: int = 4, fields: int = 2) -> torch.nn.Sequential:
    """A lifting convolution, a regular one and a pooled readout, tied by `symmetrize`; its input is 3×9×9."""
    lifting = torch.nn.Conv2d(3, fields * order, 3, padding=1)
    regular = torch.nn.Conv2d(fields * order, fields * order, 3)
    for layer, blocks_in in ((lifting, [1] * 3), (regular, [order] * fields)):
        blocks_out = [order] * fields
        actions = regular_actions(blocks_in, blocks_out, order=order, kernel_size=3)
        tag_blocks(layer, blocks_in, blocks_out, actions=actions)
    network = torch.nn.Sequential(
        lifting,
        torch.nn.ReLU(),
        regular,
        GroupMaxPool((order,) * fields),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(fields, 5),
    )
    symmetrize(network)
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))


class LeftHalf(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., : x.shape[-1] // 2].sum((-1, -2))


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((-1, -2)) * self.factor


@pytest.mark.parametrize("order", [2, 4, 8])
def test_a_symmetrized_network_is_equivariant(order, images):
    report = equivariance_error(c4_network(order), images)
    assert report.worst < 1e-12
    assert [str(element) for element, _ in report.errors] == {2: ["180°"]}.get(order, ["90°", "180°", "270°"])


def test_an_untied_network_is_not(images):
    network = c4_network()
    with torch.no_grad():
        network[2].weight[0, 0, 0, 0] += 1.0
    assert equivariance_error(network, images).worst > 1e-3
    with pytest.raises(EquivarianceError, match=r"Under 90|180|270.*tolerance 1e-10.*differ in 2;") as caught:
        assert_equivariant(network, images)
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, EqAimetError)
    assert "relative change" in str(caught.value)


def test_the_hint_names_grids_where_the_weights_are_tied(images):
    network = c4_network()
    network[0].stride = (2, 2)
    even = F.pad(images, (0, 1, 0, 1))
    with pytest.raises(EquivarianceError, match="even grid"):
        assert_equivariant(network, even)


def test_the_error_is_relative_to_the_largest_output():
    # f sums the left half: 4 in all; after a half turn nothing of it is left, after a quarter turn a half.
    x = torch.zeros(1, 1, 4, 4)
    x[..., :2] = 0.5
    errors = {str(element): error for element, error in equivariance_error(LeftHalf(), x).errors}
    assert errors == {"90°": 0.5, "180°": 1.0, "270°": 0.5}


def test_the_model_stays_as_it_was(images):
    network = c4_network().train()
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    equivariance_error(network, images)
    assert network.training
    assert all(value.dtype == torch.float32 for value in network.state_dict().values())
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_the_copy_is_in_eval_mode(images):
    noisy = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.AdaptiveAvgPool2d(1)).train()
    assert equivariance_error(noisy, images).worst < 1e-12


def test_feature_maps_turn_with_the_element(images):
    assert equivariance_error(torch.nn.AvgPool2d(3), images).worst < 1e-12
    crop = torch.nn.ZeroPad2d((0, -1, 0, 0))
    with pytest.raises(InvalidArgumentError, match=r"`transform_output`: received output .output. of shape"):
        equivariance_error(crop, images)


def test_channels_of_an_output_turn_by_transform_output(images):
    features = c4_network()[:3]

    def transform(output: torch.Tensor, element: Element) -> torch.Tensor:
        fields = element.turn(output).unflatten(1, (-1, 4))  # [batch, fields, 4, height, width]
        return fields.roll(int(element.angle // 90), 2).flatten(1, 2)

    assert equivariance_error(features, images).worst > 0.1
    assert_equivariant(features, images, transform_output=transform)


def test_exact_elements_are_those_of_the_layers():
    half_turn = regular_actions([2], [2], order=2, kernel_size=3)
    pointwise = regular_actions([2], [2], order=2)
    half, one, bare = (torch.nn.Conv2d(2, 2, k) for k in (3, 1, 3))
    tag_blocks(half, 2, actions=half_turn)
    tag_blocks(one, 2, actions=pointwise)
    tag_blocks(bare, 2)

    def names(*layers):
        return [str(element) for element in exact_elements(torch.nn.Sequential(*layers))]

    quarter = torch.nn.Conv2d(4, 4, 3)
    tag_blocks(quarter, 4, actions=regular_actions([4], [4], order=4, kernel_size=3))
    mirror = torch.nn.Conv2d(1, 1, 3)
    tag_blocks(mirror, 1, actions=[Action((0,), (0,), turns=1, flip=True)])

    assert names(half, one, bare) == names(half, quarter) == names(quarter, half) == ["180°"]
    assert names(mirror) == ["flip+90°"]
    assert names(one) == names(bare) == names() == ["90°", "180°", "270°"]


def test_exact_elements_hold_the_reflections_of_a_dihedral_layer():
    layer = torch.nn.Conv2d(1, 8, 3)
    turn = Action((0,), (1, 2, 3, 0, 7, 4, 5, 6), turns=1)
    mirror = Action((0,), (4, 5, 6, 7, 0, 1, 2, 3), flip=True)
    tag_blocks(layer, [1], [8], actions=(turn, mirror))
    names = [str(element) for element in exact_elements(layer)]
    assert names == ["90°", "180°", "270°", "flip", "flip+90°", "flip+180°", "flip+270°"]
    symmetrize(layer)
    pooled = torch.nn.Sequential(layer, GroupMaxPool((8,)))
    assert_equivariant(pooled, torch.randn(1, 1, 7, 7))


def test_flips_are_measured_when_asked_for(images):
    report = equivariance_error(c4_network(), images, elements=[90, Element(0, flip=True)])
    assert report.worst_element == Element(0, flip=True)
    assert report.errors[0][1] < 1e-12 < report.worst


def test_other_angles_are_interpolated_inside_the_circle():
    blurred = F.interpolate(torch.randn(1, 1, 8, 8), size=65, mode="bicubic")
    report = equivariance_error(torch.nn.AdaptiveAvgPool2d(1), blurred, elements=[45, 90])
    assert 1e-8 < report.errors[0][1] < 0.05
    assert report.errors[1][1] < 1e-12


def test_what_lies_outside_the_circle_does_not_matter_for_other_angles():
    inside = torch.ones(1, 1, 33, 33)
    corner = inside.clone()
    corner[..., 0, 0] = 100.0
    for image in (inside, corner):
        assert equivariance_error(torch.nn.AdaptiveAvgPool2d(1), image, elements=[30]).worst < 1e-12


def test_interpolation_turns_the_way_rot90_does():
    images = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    almost = Element(90.0 + 1e-9)
    assert not almost.is_exact
    assert torch.allclose(almost.turn(images), torch.rot90(images, 1, (-2, -1)), atol=1e-6)


def test_zero_outputs():
    x = torch.ones(1, 1, 4, 4)
    assert equivariance_error(Scaled(0.0), x).worst == 0.0
    appears = torch.zeros(1, 1, 4, 4)
    appears[..., 3:] = 1.0
    assert equivariance_error(LeftHalf(), appears).worst == 1.0


def test_the_report_reads_as_a_table_and_as_json(images):
    report = equivariance_error(torch.nn.Flatten(), images, elements=[180, 45.5])
    lines = str(report).splitlines()
    assert lines[0].split() == ["element", "relative", "change"]
    assert lines[1].startswith("180°")
    assert lines[2].startswith("45.5°")
    values = json.loads(json.dumps(report.to_dict()))
    assert values["worst"] == float(report) == max(values["errors"].values())
    assert values["worst_element"] in ("180°", "45.5°")


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (torch.ones(1, 3, 9, 9, dtype=torch.int64), "images of torch.int64"),
        (torch.ones(1, 3, 9, 8), r"shape \(1, 3, 9, 8\)"),
        (torch.ones(3, 9, 9), r"shape \(3, 9, 9\)"),
        (torch.ones(0, 3, 9, 9), r"shape \(0, 3, 9, 9\)"),
        (torch.full((1, 3, 9, 9), math.nan), "NaN"),
        ([[1.0]], "a list"),
        ((), "an empty tuple"),
        ({}, "an empty dict"),
        ((torch.ones(1, 3, 9, 9), None), "a NoneType"),
        ((torch.ones(1, 3), torch.ones(2)), r"shape \(1, 3\), \(2,\)"),
    ],
)
def test_unfit_inputs_are_named(x, text):
    with pytest.raises(
        InvalidArgumentError, match=f"`inputs`: received {text}.*expected a finite floating-point"
    ):
        equivariance_error(torch.nn.Flatten(), x)


def test_unfit_models_are_named(images):
    with pytest.raises(InvalidArgumentError, match=r"`model`: received a function.*`sim\.model`"):
        equivariance_error(F.relu, images)


@pytest.mark.parametrize("elements", [[], ["90"], "90", [math.nan], [None], 90])
def test_unfit_elements_are_named(elements, images):
    with pytest.raises(InvalidArgumentError, match=r"`elements`: received .*expected at least one angle"):
        equivariance_error(torch.nn.Flatten(), images, elements=elements)


def test_unfit_dtype_and_tolerance_are_named(images):
    with pytest.raises(InvalidArgumentError, match=r"`dtype`: received torch.int8"):
        equivariance_error(torch.nn.Flatten(), images, dtype=torch.int8)
    for tolerance in (-1.0, math.nan):
        with pytest.raises(InvalidArgumentError, match="`tolerance`"):
            assert_equivariant(torch.nn.Flatten(), images, tolerance=tolerance)
