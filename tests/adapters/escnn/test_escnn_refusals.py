"""What escnn's networks can't be exported for is named: another space, another group, the other library."""

from __future__ import annotations

import pytest
import torch
from escnn.group import klein4_group

from eq_aimet import export_model
from eq_aimet.adapters import e2cnn as old
from eq_aimet.adapters.conversion import to_plain_module
from eq_aimet.adapters.escnn import enn, gspaces
from eq_aimet.adapters.escnn.modules import REASONS
from eq_aimet.errors import ExportError, InvalidArgumentError
from eq_aimet.models import EquivariantMobileNetV2

SPACE = gspaces.rot2dOnR2(4)
FIELDS = enn.FieldType(SPACE, [SPACE.regular_repr])
OLD_SPACE = old.gspaces.Rot2dOnR2(4)
OLD_FIELDS = old.enn.FieldType(OLD_SPACE, [OLD_SPACE.regular_repr])


@pytest.mark.parametrize("name", [name for name in REASONS if hasattr(enn, name)])
def test_modules_off_the_plane_are_refused_by_name(name):
    cls = getattr(enn, name)
    module = cls.__new__(cls)  # escnn's three-dimensional groups need lie_learn
    torch.nn.Module.__init__(module)
    if isinstance(module, enn.EquivariantModule):
        with pytest.raises(ExportError, match=f"`{name}` of escnn works on .*register a plugin"):
            to_plain_module(module)


def test_a_group_that_is_not_planar_is_named():
    space = gspaces.no_base_space(klein4_group())
    module = enn.ReLU(enn.FieldType(space, [space.regular_repr]))
    with pytest.raises(ExportError, match=r"`ReLU` of escnn works with the group .*Klein4.*C_N, D_N"):
        to_plain_module(module)


class Mixed(torch.nn.Module):
    """A convolution of each library; plain tensors go from one to the other, or a typed one."""

    def __init__(self, wraps):
        super().__init__()
        self.first = old.enn.R2Conv(OLD_FIELDS, OLD_FIELDS, 3, padding=1)
        self.second = enn.R2Conv(FIELDS, FIELDS, 3, padding=1)
        self.wraps = wraps

    def forward(self, x):
        y = self.first(old.enn.GeometricTensor(x, OLD_FIELDS))
        return self.second(FIELDS(y.tensor) if self.wraps else y).tensor


def test_both_libraries_work_in_one_network():
    network, x = Mixed(wraps=True).eval(), torch.randn(2, 4, 5, 5)
    plain = export_model(network, x)
    with torch.no_grad():
        assert torch.allclose(plain(x), network(x), rtol=1e-5, atol=1e-6)


def test_a_field_of_the_other_library_is_named():
    message = (
        r"`model.second` \(R2Conv\): received a field of type \[4-Rotations.*expected a `GeometricTensor`"
    )
    with pytest.raises(ExportError, match=message):
        export_model(Mixed(wraps=False).eval(), torch.randn(2, 4, 5, 5))


def test_an_unknown_library_is_refused():
    with pytest.raises(
        InvalidArgumentError, match='`library`: received \'e3nn\'; expected "e2cnn" or "escnn"'
    ):
        EquivariantMobileNetV2(width=0.25, group=4, input_size=33, library="e3nn")
