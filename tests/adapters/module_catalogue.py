"""Every public class of `e2cnn.nn` and `escnn.nn` with examples, which the tests convert."""

from __future__ import annotations

from typing import Any

import torch
from escnn_cases import escnn_cases
from function_cases import function_cases
from layer_cases import layer_cases
from library_kits import E2CNN, ESCNN, Kit
from module_cases import Case

from eq_aimet.adapters.escnn.modules import REFUSED

# What a library's Python module of modules exports that is no layer, and why no row of the table names it.
NO_LAYERS = {
    "FieldType": "a type",
    "GeometricTensor": "a typed tensor",
    "tensor_directsum": "a function, exported as a concatenation",
    "EquivariantModule": "the base class of modules; a class of your own is traced, or exported by its own "
    "`export()`",
    "init": "a module of functions",
}


class Listed(torch.nn.Module):
    """Convolutions out of an `enn.ModuleList`."""

    def __init__(self, kit: Kit) -> None:
        super().__init__()
        self.in_type = kit.regular(kit.c4)
        self.layers = kit.enn.ModuleList(
            [kit.enn.R2Conv(self.in_type, self.in_type, 3, padding=1) for _ in range(2)]
        )

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def _e2cnn_cases() -> list[Case]:
    enn, c4, d4 = E2CNN.enn, E2CNN.regular(E2CNN.c4), E2CNN.regular(E2CNN.d4)
    cases = {
        "R2Diffop: C4, 5×5": lambda: enn.R2Diffop(c4, c4, 5, padding=2),
        "R2Diffop: D4, groups": lambda: enn.R2Diffop(d4, d4, 3, accuracy=1, groups=2),
        "ModuleList: two layers": lambda: Listed(E2CNN),
    }
    return [Case(E2CNN, *name.split(": ", 1), build) for name, build in cases.items()]


def public_classes(kit: Kit) -> set[str]:
    """Return the names of the public classes that can be exported; a class with two names counts once."""
    refused = set(REFUSED) if kit is ESCNN else set()
    classes = {getattr(kit.enn, name): name for name in kit.enn.__all__ if name not in NO_LAYERS}
    return {name for cls, name in classes.items() if cls not in refused}


def _shared_cases(kit: Kit) -> list[Case]:
    return [*layer_cases(kit), *function_cases(kit)]


# One function makes the plain module of a class that both libraries have. So AIMET meets all kinds of plain
# modules in the examples of e2cnn and in those of escnn's own classes.
DISTINCT_CASES: tuple[Case, ...] = (*_shared_cases(E2CNN), *_e2cnn_cases(), *escnn_cases())
CASES: tuple[Case, ...] = (*DISTINCT_CASES, *_shared_cases(ESCNN))
