"""Groups of which few elements or only the identity are exact on a square grid: C1, C2, C3, C5, C6."""

import logging

import pytest
import torch

from eq_aimet import export_model
from eq_aimet.adapters.e2cnn import enn, gspaces
from eq_aimet.symmetry import (
    assert_equivariant,
    equivariance_error,
    exact_elements,
    regular_actions,
    tag_blocks,
)


def exported(space, representation="regular") -> torch.nn.Module:
    """Return an exported network of two 3×3 convolutions, invariant at its end up to its grid."""
    image = enn.FieldType(space, [space.trivial_repr])
    hidden = enn.FieldType(space, 2 * [space.fibergroup.representations[representation]])
    pool = enn.GroupPooling(hidden) if representation == "regular" else enn.NormPool(hidden)
    body = enn.SequentialModule(enn.R2Conv(image, hidden, 3), enn.R2Conv(hidden, hidden, 3), pool)
    return export_model(body.eval(), torch.rand(1, 1, 9, 9))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "space", [gspaces.Rot2dOnR2(3), gspaces.Rot2dOnR2(5), gspaces.TrivialOnR2()], ids=["C3", "C5", "C1"]
)
def test_only_the_identity_is_exact_so_that_nothing_is_judged(space, images, caplog):
    plain = exported(space)
    assert exact_elements(plain) == ()
    report = equivariance_error(plain, images)
    assert (report.changes, report.errors, report.worst) == ((), (), 0.0)
    assert str(report).startswith("Nothing to judge")
    with caplog.at_level(logging.WARNING, logger="eq_aimet"):
        assert_equivariant(plain, images, tolerance=0.0)
    assert "Nothing to judge" in caplog.text


def test_an_angle_of_the_group_is_judged_if_the_caller_asks_for_it():
    smooth = torch.nn.functional.interpolate(torch.randn(1, 1, 4, 4), size=33, mode="bicubic")
    report = equivariance_error(exported(gspaces.Rot2dOnR2(3)), smooth, elements=[120])
    assert [str(element) for element, _ in report.errors] == ["120°"]
    assert report.worst > 1e-8


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (gspaces.Rot2dOnR2(2), ["180°"]),
        (gspaces.Rot2dOnR2(6), ["180°"]),
        (gspaces.FlipRot2dOnR2(3), ["flip"]),
    ],
    ids=["C2", "C6", "D3"],
)
def test_the_exact_elements_are_those_of_the_group(space, names, images):
    plain = exported(space)
    assert [str(element) for element in exact_elements(plain)] == names
    assert_equivariant(plain, images)


def test_fields_without_permutations_leave_the_quarter_turns(images):
    plain = exported(gspaces.Rot2dOnR2(4), "irrep_1")
    assert len(exact_elements(plain)) == 3
    assert_equivariant(plain, images)


def test_tags_by_hand_say_whether_the_actions_are_known():
    unknown, known = torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(1, 3, 3)
    tag_blocks(unknown, [1], [3])
    tag_blocks(known, [1], [3], actions=regular_actions([1], [3], order=3, kernel_size=3))
    assert len(exact_elements(unknown)) == 3
    assert exact_elements(known) == exact_elements(torch.nn.Sequential(unknown, known)) == ()
