"""Examples of the nonlinearities and of the modules that rearrange fields, which e2cnn and escnn share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from layer_cases import induced, mixed, vectors
from library_kits import Kit
from module_cases import Case


class Branches(torch.nn.Module):
    """Fields by label, each with a module of its own, merged again: the parts of `MultipleModule`."""

    def __init__(self, kit: Kit) -> None:
        super().__init__()
        enn = kit.enn
        in_type = kit.field_type(kit.c4, "regular", "trivial", "regular", "trivial")
        self.in_type = in_type
        self.branch = enn.BranchingModule(in_type, ["a", "b", "a", "b"])
        first, second = self.branch.out_type["a"], self.branch.out_type["b"]
        self.merge = enn.MergeModule(
            [(enn.R2Conv(first, kit.regular(kit.c4), 3, padding=1), "a"), (enn.ReLU(second), "b")]
        )

    def forward(self, x: Any) -> Any:
        return self.merge(self.branch(x))


class Pooled(torch.nn.Module):
    """`MaxPoolChannels`, which takes a plain tensor, behind a convolution."""

    def __init__(self, kit: Kit) -> None:
        super().__init__()
        self.in_type = kit.field_type(kit.c4, "trivial")
        self.convolution = kit.enn.R2Conv(self.in_type, kit.regular(kit.c4), 3)
        self.pool = kit.enn.MaxPoolChannels(4)
        self.out_type = kit.field_type(kit.c4, "trivial", "trivial")

    def forward(self, x: Any) -> Any:
        return type(x)(self.pool(self.convolution(x).tensor), self.out_type)


def function_cases(kit: Kit) -> list[Case]:
    """Return examples of nonlinearities, and of modules that rearrange fields."""
    enn, regular = kit.enn, kit.regular
    c4 = kit.c4
    cases = {
        **_pointwise(kit),
        **_norms(kit),
        **_gates(kit),
        **_containers(kit),
        "MaxPoolChannels: plain tensors": lambda: Pooled(kit),
        "FieldDropout: eval": lambda: enn.FieldDropout(mixed(kit)),
        "PointwiseDropout: eval": lambda: enn.PointwiseDropout(regular(c4)),
        "ReshuffleModule: mixed": lambda: enn.ReshuffleModule(mixed(kit), [4, 2, 0, 3, 1]),
        "MaskModule: margin": lambda: enn.MaskModule(mixed(kit), 9, margin=2),
        "RestrictionModule: D4 to C4": lambda: _restricted(kit),
        "DisentangleModule: interleaved vectors": lambda: enn.DisentangleModule(_interleaved(kit)),
        "DisentangleModule: restricted fields": lambda: enn.DisentangleModule(
            kit.field_type(kit.c8, "regular", 1).restrict(4)
        ),
        "IdentityModule: plain": lambda: enn.IdentityModule(regular(c4)),
    }
    return [Case(kit, *name.split(": ", 1), build) for name, build in cases.items()]


def _pointwise(kit: Kit) -> dict[str, Any]:
    enn, fields = kit.enn, kit.regular(kit.c4)
    return {
        "ReLU: out of place": lambda: enn.ReLU(fields),
        "ReLU: in place": lambda: enn.ReLU(fields, inplace=True),
        "ELU: alpha": lambda: enn.ELU(fields, alpha=0.7),
        **{
            f"PointwiseNonLinearity: {function}": lambda f=function: enn.PointwiseNonLinearity(fields, f)
            for function in ("p_relu", "p_elu", "p_sigmoid", "p_tanh")
        },
        "VectorFieldNonLinearity: C4": lambda: enn.VectorFieldNonLinearity(fields),
        "VectorFieldNonLinearity: C8": lambda: enn.VectorFieldNonLinearity(kit.regular(kit.c8)),
        **{
            f"ConcatenatedNonLinearity: {function}": lambda f=function: enn.ConcatenatedNonLinearity(
                _signs(kit), f
            )
            for function in ("c_relu", "c_sigmoid", "c_tanh")
        },
    }


def _norms(kit: Kit) -> dict[str, Any]:
    enn, d4, o2 = kit.enn, kit.d4, kit.o2
    return {
        **{
            f"NormNonLinearity: {function}": lambda f=function: enn.NormNonLinearity(vectors(kit), f)
            for function in ("n_relu", "n_sigmoid")
        },
        "NormNonLinearity: squash": lambda: enn.NormNonLinearity(vectors(kit), "squash", bias=False),
        "InducedNormNonLinearity: O(2)": lambda: enn.InducedNormNonLinearity(
            kit.field_type(o2, induced(kit, o2)[0])
        ),
        "InducedNormNonLinearity: D4, n_sigmoid": lambda: enn.InducedNormNonLinearity(
            kit.field_type(d4, *2 * [induced(kit, d4)[0]]), "n_sigmoid"
        ),
    }


def _gates(kit: Kit) -> dict[str, Any]:
    enn, so2, d4, field_type = kit.enn, kit.so2, kit.d4, kit.field_type
    labels = ["gate", "gated", "gate", "gated", "gated", "gate"]
    cases = {}
    for keep in (False, True):
        cases[f"GatedNonLinearity1: {'gates kept' if keep else 'mixed order'}"] = lambda k=keep: (
            enn.GatedNonLinearity1(field_type(so2, 0, 2, 0, 0, 1, 0), labels, drop_gates=not k)
        )
    cases["GatedNonLinearity1: gates first"] = lambda: enn.GatedNonLinearity1(field_type(so2, 0, 0, 1, 2))
    cases["GatedNonLinearity2: mixed sizes"] = lambda: enn.GatedNonLinearity2(
        (field_type(so2, 0, 0, 0), field_type(so2, 1, 0, 2))
    )
    for keep in (False, True):
        if keep and kit.name == "escnn":
            continue  # escnn's own `forward` fails: the shapes of output and gates differ
        cases[f"InducedGatedNonLinearity1: {'gates kept' if keep else 'D4'}"] = lambda k=keep: (
            enn.InducedGatedNonLinearity1(
                field_type(d4, *2 * [induced(kit, d4)[1]], *2 * [induced(kit, d4)[0]]), drop_gates=not k
            )
        )
    return cases


def _containers(kit: Kit) -> dict[str, Any]:
    enn, c4, regular = kit.enn, kit.c4, kit.regular
    labels = ["b", "a", "b", "c", "a"]
    return {
        "BranchingModule: mixed order": lambda: enn.BranchingModule(mixed(kit), labels),
        "BranchingModule: reshuffled": lambda: enn.BranchingModule(mixed(kit), labels, reshuffle=2),
        "MergeModule: behind a branching": lambda: Branches(kit),
        "MultipleModule: two labels": lambda: _multiple(kit, 0),
        "MultipleModule: reshuffled": lambda: _multiple(kit, 1),
        "SequentialModule: three layers": lambda: enn.SequentialModule(
            enn.R2Conv(kit.field_type(c4, "trivial"), regular(c4), 3),
            enn.InnerBatchNorm(regular(c4)),
            enn.ReLU(regular(c4), inplace=True),
        ),
    }


def _signs(kit: Kit) -> Any:
    # The libraries compute the concatenated representation with pymanopt; that of a sign is the regular one.
    group = kit.one_axis.fibergroup
    name = f"concatenated_{kit.one_axis.irrep(1).name}"
    group.representations.setdefault(name, kit.one_axis.regular_repr)
    return kit.field_type(kit.one_axis, 1, 1, 1)


def _interleaved(kit: Kit) -> Any:
    """Return two vectors whose components take turns, as one field, twice; and a scalar."""
    order = np.eye(4)[[0, 2, 1, 3]]
    pair = kit.group.directsum([kit.c4.irrep(1), kit.c4.irrep(1)], change_of_basis=order, name="interleaved")
    return kit.field_type(kit.c4, pair, "trivial", pair)


def _restricted(kit: Kit) -> torch.nn.Module:
    enn, d4 = kit.enn, kit.d4
    restriction = enn.RestrictionModule(kit.regular(d4), (None, 4))
    coarse = restriction.out_type
    return enn.SequentialModule(
        enn.R2Conv(kit.regular(d4), kit.regular(d4), 3),
        restriction,
        enn.R2Conv(coarse, kit.regular(coarse.gspace), 3),
    )


def _multiple(kit: Kit, reshuffle: int) -> torch.nn.Module:
    enn, so2 = kit.enn, kit.so2
    scalars, others = kit.field_type(so2, 0, 0), kit.field_type(so2, 1, 2)
    return enn.MultipleModule(
        kit.field_type(so2, 0, 1, 0, 2),
        ["scalar", "vector", "scalar", "vector"],
        [(enn.ReLU(scalars), "scalar"), (enn.NormNonLinearity(others), "vector")],
        reshuffle=reshuffle,
    )
