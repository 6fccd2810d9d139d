"""Examples of the modules that escnn has and e2cnn has not."""

from __future__ import annotations

from typing import Any

import torch
from layer_cases import mixed, vectors
from library_kits import ESCNN
from module_cases import Case

from eq_aimet.adapters.escnn import enn, gspaces

C4, D4, SO2, O2 = ESCNN.c4, ESCNN.d4, ESCNN.so2, ESCNN.o2
POINT = gspaces.no_base_space(C4.fibergroup)


def escnn_cases() -> list[Case]:
    """Return examples of escnn's own modules."""
    regular = ESCNN.regular
    irreps = SO2.fibergroup.bl_irreps(2)
    cases = {
        "LeakyReLU: slope": lambda: enn.LeakyReLU(regular(C4), negative_slope=0.2),
        "LeakyReLU: in place": lambda: enn.LeakyReLU(regular(C4), inplace=True),
        "NormNonLinearity: n_softplus": lambda: enn.NormNonLinearity(vectors(ESCNN), "n_softplus"),
        "IIDBatchNorm2d: mixed order": lambda: enn.IIDBatchNorm2d(mixed(ESCNN)),
        "IIDBatchNorm2d: D4, no affine": lambda: enn.IIDBatchNorm2d(regular(D4), affine=False),
        "IIDBatchNorm2d: irreps without a scalar": lambda: enn.IIDBatchNorm2d(ESCNN.field_type(SO2, 1, 2, 1)),
        "GatedNonLinearityUniform: SO(2)": lambda: enn.GatedNonLinearityUniform(_uniformly_gated()),
        **{
            f"FourierPointwise: {function}": lambda f=function: enn.FourierPointwise(
                SO2, 2, irreps, type="regular", N=8, function=f, inplace=f in ("p_relu", "p_elu")
            )
            for function in ("p_relu", "p_elu", "p_sigmoid", "p_tanh")
        },
        "FourierPointwise: other irreps out": lambda: enn.FourierPointwise(
            SO2, 2, irreps, type="regular", N=8, out_irreps=SO2.fibergroup.bl_irreps(1)
        ),
        "FourierELU: O(2)": lambda: enn.FourierELU(O2, 2, O2.fibergroup.bl_irreps(1), type="regular", N=6),
        "QuotientFourierPointwise: O(2) by flips": lambda: enn.QuotientFourierPointwise(
            O2, (0.0, 1), 2, O2.fibergroup.bl_irreps(2), type="regular", N=8
        ),
        "QuotientFourierELU: O(2) by flips": lambda: enn.QuotientFourierELU(
            O2, (0.0, 1), 2, O2.fibergroup.bl_irreps(2), type="regular", N=8
        ),
        "TensorProductModule: vectors": lambda: enn.TensorProductModule(
            ESCNN.field_type(SO2, 1, 1), ESCNN.field_type(SO2, 2, 2)
        ),
        "TensorProductModule: regular fields": lambda: enn.TensorProductModule(regular(C4), regular(C4)),
        **_on_point(),
    }
    return [Case(ESCNN, *name.split(": ", 1), build) for name, build in cases.items()]


def _on_point() -> dict[str, Any]:
    regular = ESCNN.regular
    return {
        "Linear: fields on a point": lambda: enn.Linear(
            regular(POINT), ESCNN.field_type(POINT, "trivial", 1)
        ),
        "Linear: no bias": lambda: enn.Linear(regular(POINT), regular(POINT), bias=False),
        "IIDBatchNorm1d: fields on a point": lambda: enn.IIDBatchNorm1d(
            ESCNN.field_type(POINT, "regular", "trivial", "regular")
        ),
        "FourierPointwise: fields on a point": lambda: enn.FourierPointwise(
            POINT, 2, C4.fibergroup.bl_irreps(1), type="regular", N=4
        ),
        "SequentialModule: a head on a point": _head,
    }


def _uniformly_gated() -> Any:
    scalar, vector = SO2.irrep(0), SO2.irrep(1)
    gated = ESCNN.group.directsum([scalar, scalar, vector, SO2.irrep(2)], name="gated")
    return ESCNN.field_type(SO2, gated, gated)


def _head() -> torch.nn.Module:
    hidden = ESCNN.regular(POINT, 3)
    return enn.SequentialModule(
        enn.Linear(ESCNN.regular(POINT), hidden),
        enn.IIDBatchNorm1d(hidden),
        enn.ReLU(hidden, inplace=True),
        enn.GroupPooling(hidden),
    )
