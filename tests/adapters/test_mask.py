"""The circular mask."""

from __future__ import annotations

import pytest
import torch

from eq_aimet.adapters.e2cnn import CircularMask, enn, gspaces
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain.circular_mask import circular_mask

GSPACE = gspaces.Rot2dOnR2(4)
RGB = enn.FieldType(GSPACE, 3 * [GSPACE.trivial_repr])


@pytest.mark.parametrize("size", [1, 3, 4, 11, 95, 96])
def test_binary_symmetric_and_by_pixel_centres(size):
    mask = circular_mask(size)
    assert mask.shape == (1, 1, size, size)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask, mask.rot90(1, (2, 3)))
    assert torch.equal(mask, mask.flip(3))
    for row in range(size):
        for column in range(size):
            distance = ((row + 0.5 - size / 2) ** 2 + (column + 0.5 - size / 2) ** 2) ** 0.5
            assert mask[0, 0, row, column] == (distance <= size / 2)


def test_its_area_is_the_circles():
    assert circular_mask(95).mean().item() == pytest.approx(torch.pi / 4, abs=2e-3)


def test_module_masks_and_keeps_type_and_precision():
    x = enn.GeometricTensor(torch.rand(2, 3, 7, 7, dtype=torch.float64), RGB)
    out = CircularMask(RGB, 7).double()(x)
    assert out.type == RGB
    assert torch.equal(out.tensor, x.tensor * circular_mask(7))
    assert out.tensor[0, 0, 0, 0] == 0


def test_it_adds_nothing_to_the_state_dict():
    assert not CircularMask(RGB, 7).state_dict()


def test_export_is_plain_and_separate():
    mask = CircularMask(RGB, 7)
    plain = mask.export()
    x = torch.rand(2, 3, 7, 7)
    assert torch.equal(plain(x), mask(enn.GeometricTensor(x, RGB)).tensor)
    assert not isinstance(plain, enn.EquivariantModule)
    assert (plain.training, mask.training) == (False, True)
    plain.mask.zero_()
    assert mask.mask.any()


def test_another_grid_is_refused():
    with pytest.raises(InvalidArgumentError) as raised:
        CircularMask(RGB, 7)(enn.GeometricTensor(torch.rand(2, 3, 9, 7), RGB))
    assert str(raised.value) == (
        "`input`: received a grid of (9, 7); expected (7, 7). Build the mask with the size of its input."
    )


def test_another_type_is_refused():
    grey = enn.FieldType(GSPACE, [GSPACE.trivial_repr])
    with pytest.raises(InvalidArgumentError, match="Build the mask with the field type of its input"):
        CircularMask(RGB, 7)(enn.GeometricTensor(torch.rand(2, 1, 7, 7), grey))
