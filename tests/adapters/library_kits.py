"""One set of names for the libraries of equivariant networks, so that a test can run with each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import Any

from eq_aimet.adapters import e2cnn as e2cnn_adapter
from eq_aimet.adapters import escnn as escnn_adapter


@dataclass(frozen=True)
class Kit:
    """A library's modules, and its spaces by one set of names.

    Attributes:
        name: The library's name.
        enn: Its modules.
        group: Its module of groups.
        rotations: Returns the space of C_N by N, or of SO(2) for -1 and a highest frequency.
        flips_and_rotations: The same for D_N and O(2).
        flips: Returns the space of one mirror axis.
        trivial: Returns the space without symmetry.
    """

    name: str
    enn: ModuleType
    group: ModuleType
    rotations: Callable[..., Any]
    flips_and_rotations: Callable[..., Any]
    flips: Callable[[], Any]
    trivial: Callable[[], Any]

    def __str__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: Any) -> Kit:
        return self  # networks hold their kit

    @cached_property
    def c4(self) -> Any:
        return self.rotations(4)

    @cached_property
    def c8(self) -> Any:
        return self.rotations(8)

    @cached_property
    def d4(self) -> Any:
        return self.flips_and_rotations(4)

    @cached_property
    def one_axis(self) -> Any:
        return self.flips()

    @cached_property
    def so2(self) -> Any:
        return self.rotations(-1, 3)

    @cached_property
    def o2(self) -> Any:
        return self.flips_and_rotations(-1, 3)

    def field_type(self, space: Any, *fields: Any) -> Any:
        """Return the type of these fields: "regular", "trivial", an irrep's id, or a representation."""
        representations = []
        for field in fields:
            if field == "regular":
                representations.append(space.regular_repr)
            elif field == "trivial":
                representations.append(space.trivial_repr)
            elif isinstance(field, (int, tuple)):
                representations.append(space.irrep(*(field if isinstance(field, tuple) else (field,))))
            else:
                representations.append(field)
        return self.enn.FieldType(space, representations)

    def regular(self, space: Any, count: int = 2) -> Any:
        """Return the type of `count` regular fields."""
        return self.field_type(space, *count * ["regular"])

    def is_dihedral(self, space: Any) -> bool:
        """Return whether the group of a space is D_N."""
        return type(space.fibergroup).__name__ == "DihedralGroup"

    def element(self, space: Any, angle: float) -> Any:
        """Return the element of C_N or D_N that turns the plane by `angle` degrees."""
        order = self.rotation_order(space)
        steps = round(angle * order / 360) % order
        value = (0, steps) if self.is_dihedral(space) else steps
        return space.fibergroup.element(value) if self.name == "escnn" else value

    def rotation_order(self, space: Any) -> int:
        """Return N of C_N or D_N."""
        group = space.fibergroup
        return int(group.rotation_order if self.is_dihedral(space) else group.order())


E2CNN = Kit(
    "e2cnn",
    e2cnn_adapter.enn,
    import_module("e2cnn.group"),
    e2cnn_adapter.gspaces.Rot2dOnR2,
    e2cnn_adapter.gspaces.FlipRot2dOnR2,
    e2cnn_adapter.gspaces.Flip2dOnR2,
    e2cnn_adapter.gspaces.TrivialOnR2,
)
ESCNN = Kit(
    "escnn",
    escnn_adapter.enn,
    import_module("escnn.group"),
    escnn_adapter.gspaces.rot2dOnR2,
    escnn_adapter.gspaces.flipRot2dOnR2,
    escnn_adapter.gspaces.flip2dOnR2,
    escnn_adapter.gspaces.trivialOnR2,
)
KITS = (E2CNN, ESCNN)
