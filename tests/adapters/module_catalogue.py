"""Every public class of `e2cnn.nn` with examples: what the tests convert and the page of modules lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from e2cnn.group import directsum

from eq_aimet.adapters.e2cnn import enn, gspaces

C4, C8 = gspaces.Rot2dOnR2(4), gspaces.Rot2dOnR2(8)
D4, FLIPS = gspaces.FlipRot2dOnR2(4), gspaces.Flip2dOnR2()
SO2, O2 = gspaces.Rot2dOnR2(-1, 3), gspaces.FlipRot2dOnR2(-1, 3)

# What `e2cnn.nn` exports that is no layer, and why no row of the table names it.
NO_LAYERS = {
    "FieldType": "a type",
    "GeometricTensor": "a typed tensor",
    "tensor_directsum": "a function, exported as a concatenation",
    "EquivariantModule": "the base class of modules; a class of your own is traced, or exported by its own "
    "`export()`",
    "init": "a module of functions",
}


def field_type(space: gspaces.GSpace, *fields: Any) -> enn.FieldType:
    """Return the type of these fields: "regular", "trivial", the number of an irrep, or a representation."""
    named = {"regular": lambda: space.regular_repr, "trivial": lambda: space.trivial_repr}
    representations = []
    for field in fields:
        if isinstance(field, str):
            representations.append(named[field]())
        elif isinstance(field, int):
            representations.append(space.irrep(field))
        elif isinstance(field, tuple):
            representations.append(space.irrep(*field))
        else:
            representations.append(field)
    return enn.FieldType(space, representations)


def regular(space: gspaces.GSpace, count: int = 2) -> enn.FieldType:
    """Return the type of `count` regular fields."""
    return field_type(space, *count * ["regular"])


class Network(torch.nn.Module):
    """A network of one e2cnn module that takes and returns plain tensors, as users write them."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> Any:
        types = input_types(self.module)
        output = self.module(*[enn.GeometricTensor(x, t) for x, t in zip(inputs, types, strict=True)])
        if isinstance(output, dict):
            return [output[label].tensor for label in sorted(output)]
        return output.tensor


class Branches(torch.nn.Module):
    """Fields by label, each with a module of its own, merged again: the parts of `MultipleModule`."""

    def __init__(self) -> None:
        super().__init__()
        in_type = field_type(C4, "regular", "trivial", "regular", "trivial")
        self.in_type = in_type
        self.branch = enn.BranchingModule(in_type, ["a", "b", "a", "b"])
        first, second = self.branch.out_type["a"], self.branch.out_type["b"]
        self.merge = enn.MergeModule(
            [(enn.R2Conv(first, regular(C4), 3, padding=1), "a"), (enn.ReLU(second), "b")]
        )

    def forward(self, x: enn.GeometricTensor) -> enn.GeometricTensor:
        return self.merge(self.branch(x))


class Listed(torch.nn.Module):
    """Convolutions out of an `enn.ModuleList`."""

    def __init__(self) -> None:
        super().__init__()
        self.in_type = regular(C4)
        self.layers = enn.ModuleList([enn.R2Conv(self.in_type, self.in_type, 3, padding=1) for _ in range(2)])

    def forward(self, x: enn.GeometricTensor) -> enn.GeometricTensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Pooled(torch.nn.Module):
    """`MaxPoolChannels`, which takes a plain tensor, behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.in_type = field_type(C4, "trivial")
        self.convolution = enn.R2Conv(self.in_type, regular(C4), 3)
        self.pool = enn.MaxPoolChannels(4)

    def forward(self, x: enn.GeometricTensor) -> Any:
        pooled = self.pool(self.convolution(x).tensor)
        return enn.GeometricTensor(pooled, field_type(C4, "trivial", "trivial"))


def input_types(module: torch.nn.Module) -> tuple[enn.FieldType, ...]:
    """Return the field types that `module` is called with."""
    in_type = module.in_type
    return tuple(in_type) if isinstance(in_type, (tuple, list)) else (in_type,)


@dataclass(frozen=True)
class Case:
    """One example of a class: what it shows, how it is built, and the side of the grid it is called on."""

    cls: str
    variant: str
    build: Callable[[], torch.nn.Module]
    size: int = 9

    def __str__(self) -> str:
        return f"{self.cls}[{self.variant}]"

    def inputs(self, batch: int = 2) -> tuple[torch.Tensor, ...]:
        """Return random inputs, the same for each call."""
        generator = torch.Generator().manual_seed(7)
        types = input_types(self.build())
        return tuple(torch.randn(batch, t.size, self.size, self.size, generator=generator) for t in types)


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Return `module` in eval mode, with random weights and statistics in place of the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    module.train()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if "running_var" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            elif "running_mean" in name:
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
        return module.eval()


def _induced(space: gspaces.GSpace) -> tuple[Any, Any]:
    """Return an induced representation of a two-dimensional irrep, and one that can gate it."""
    group = space.fibergroup
    identity = (None, -1) if group.order() < 0 else (None, group.order() // 2)
    subgroup = group.subgroup(identity)[0]
    return (
        group.induced_representation(identity, subgroup.irrep(1)),
        group.induced_representation(identity, subgroup.trivial_representation),
    )


def _mixed(space: gspaces.GSpace = C4) -> enn.FieldType:
    return field_type(space, "regular", "trivial", "regular", 1, "trivial")


def _permuted(space: gspaces.GSpace = C4) -> enn.FieldType:
    return field_type(space, "regular", "trivial", "regular", "trivial")


def _signs() -> enn.FieldType:
    # e2cnn computes the concatenated representation with pymanopt; that of a sign is the regular one.
    FLIPS.fibergroup.representations.setdefault("concatenated_irrep_1", FLIPS.regular_repr)
    return field_type(FLIPS, 1, 1, 1)


def _vectors() -> enn.FieldType:
    return field_type(SO2, 1, 0, 2, 0, 1)


def _cases() -> Sequence[Case]:
    def add(cls: str, variant: str, build: Callable[[], torch.nn.Module], size: int = 9) -> None:
        cases.append(Case(cls, variant, build, size))

    cases: list[Case] = []
    for name, space in (("C4", C4), ("C8", C8), ("D4", D4), ("flips", FLIPS)):
        add(
            "R2Conv",
            f"{name}, 3×3",
            lambda s=space: enn.R2Conv(field_type(s, "trivial"), regular(s), 3, padding=1),
        )
    add("R2Conv", "1×1, mixed fields", lambda: enn.R2Conv(_mixed(), _mixed(), 1))
    add(
        "R2Conv",
        "5×5, stride, no bias",
        lambda: enn.R2Conv(regular(C4), regular(C4), 5, stride=2, bias=False),
    )
    add("R2Conv", "dilation, groups", lambda: enn.R2Conv(regular(C4), regular(C4), 3, dilation=2, groups=2))
    for mode in ("reflect", "replicate", "circular"):
        add("R2Conv", mode, lambda m=mode: enn.R2Conv(regular(C4), regular(C4), 3, padding=1, padding_mode=m))
    add("R2Conv", "padding of a pair", lambda: enn.R2Conv(regular(C4), regular(C4), 3, padding=(1, 0)))
    add("R2Conv", "SO(2), irreps", lambda: enn.R2Conv(_vectors(), field_type(SO2, 0, 1), 3))
    add(
        "R2Conv",
        "O(2), irreps",
        lambda: enn.R2Conv(field_type(O2, (0, 0), (1, 1)), field_type(O2, (1, 1)), 3),
    )
    add("R2ConvTransposed", "stride", lambda: enn.R2ConvTransposed(regular(C4), regular(C4), 3, stride=2))
    add(
        "R2ConvTransposed",
        "output_padding",
        lambda: enn.R2ConvTransposed(regular(C4), regular(C4), 3, padding=1, stride=2, output_padding=1),
    )
    add(
        "R2ConvTransposed",
        "groups",
        lambda: enn.R2ConvTransposed(regular(C4), regular(C4), 3, groups=2, bias=False),
    )
    add("R2Diffop", "C4, 5×5", lambda: enn.R2Diffop(regular(C4), regular(C4), 5, padding=2))
    add("R2Diffop", "D4, groups", lambda: enn.R2Diffop(regular(D4), regular(D4), 3, accuracy=1, groups=2))
    add("R2Upsampling", "scale", lambda: enn.R2Upsampling(regular(C4), 2))
    add("R2Upsampling", "size", lambda: enn.R2Upsampling(regular(C4), size=13))
    add("R2Upsampling", "align_corners", lambda: enn.R2Upsampling(regular(C4), 2, align_corners=True))
    add("R2Upsampling", "nearest", lambda: enn.R2Upsampling(regular(C4), 2, mode="nearest"))
    add("ReLU", "out of place", lambda: enn.ReLU(regular(C4)))
    add("ReLU", "in place", lambda: enn.ReLU(regular(C4), inplace=True))
    add("ELU", "alpha", lambda: enn.ELU(regular(C4), alpha=0.7))
    for function in ("p_relu", "p_elu", "p_sigmoid", "p_tanh"):
        add("PointwiseNonLinearity", function, lambda f=function: enn.PointwiseNonLinearity(regular(C4), f))
    for function in ("n_relu", "n_sigmoid"):
        add("NormNonLinearity", function, lambda f=function: enn.NormNonLinearity(_vectors(), f))
    add("NormNonLinearity", "squash", lambda: enn.NormNonLinearity(_vectors(), "squash", bias=False))
    add(
        "InducedNormNonLinearity",
        "O(2)",
        lambda: enn.InducedNormNonLinearity(field_type(O2, _induced(O2)[0])),
    )
    add(
        "InducedNormNonLinearity",
        "D4, n_sigmoid",
        lambda: enn.InducedNormNonLinearity(field_type(D4, *2 * [_induced(D4)[0]]), "n_sigmoid"),
    )
    gates = ["gate", "gated", "gate", "gated", "gated", "gate"]
    for keep in (False, True):
        add(
            "GatedNonLinearity1",
            "gates kept" if keep else "mixed order",
            lambda k=keep: enn.GatedNonLinearity1(field_type(SO2, 0, 2, 0, 0, 1, 0), gates, drop_gates=not k),
        )
    add("GatedNonLinearity1", "gates first", lambda: enn.GatedNonLinearity1(field_type(SO2, 0, 0, 1, 2)))
    add(
        "GatedNonLinearity2",
        "mixed sizes",
        lambda: enn.GatedNonLinearity2((field_type(SO2, 0, 0, 0), field_type(SO2, 1, 0, 2))),
    )
    for keep in (False, True):
        add(
            "InducedGatedNonLinearity1",
            "gates kept" if keep else "D4",
            lambda k=keep: enn.InducedGatedNonLinearity1(
                field_type(D4, *2 * [_induced(D4)[1]], *2 * [_induced(D4)[0]]), drop_gates=not k
            ),
        )
    add("VectorFieldNonLinearity", "C4", lambda: enn.VectorFieldNonLinearity(regular(C4)))
    add("VectorFieldNonLinearity", "C8", lambda: enn.VectorFieldNonLinearity(regular(C8)))
    for function in ("c_relu", "c_sigmoid", "c_tanh"):
        add(
            "ConcatenatedNonLinearity",
            function,
            lambda f=function: enn.ConcatenatedNonLinearity(_signs(), f),
        )
    add("PointwiseMaxPool", "plain", lambda: enn.PointwiseMaxPool(regular(C4), 3, 2, 1))
    add("PointwiseMaxPool", "ceil_mode", lambda: enn.PointwiseMaxPool(regular(C4), 2, ceil_mode=True))
    add("PointwiseMaxPool", "dilation", lambda: enn.PointwiseMaxPool(regular(C4), 2, dilation=2))
    add(
        "PointwiseMaxPoolAntialiased", "stride", lambda: enn.PointwiseMaxPoolAntialiased(regular(C4), 3, 2, 1)
    )
    add("PointwiseAvgPool", "padding", lambda: enn.PointwiseAvgPool(regular(C4), 3, 2, 1))
    add("PointwiseAvgPool", "ceil_mode", lambda: enn.PointwiseAvgPool(_mixed(), 2, ceil_mode=True))
    add("PointwiseAvgPoolAntialiased", "stride", lambda: enn.PointwiseAvgPoolAntialiased(_mixed(), 0.66, 2))
    add("PointwiseAdaptiveAvgPool", "3×3", lambda: enn.PointwiseAdaptiveAvgPool(regular(C4), 3))
    add("PointwiseAdaptiveMaxPool", "3×2", lambda: enn.PointwiseAdaptiveMaxPool(regular(C4), (3, 2)))
    add("PointwiseAdaptiveMaxPool", "1×1", lambda: enn.PointwiseAdaptiveMaxPool(regular(C4), 1))
    add("NormMaxPool", "one size", lambda: enn.NormMaxPool(field_type(SO2, 1, 2), 3, 2, 1))
    add("NormMaxPool", "mixed order", lambda: enn.NormMaxPool(_vectors(), 2))
    add("GroupPooling", "one size", lambda: enn.GroupPooling(regular(C8)))
    add("GroupPooling", "mixed order", lambda: enn.GroupPooling(_permuted()))
    add("MaxPoolChannels", "plain tensors", Pooled)
    add("NormPool", "mixed order", lambda: enn.NormPool(_vectors()))
    add("InducedNormPool", "O(2)", lambda: enn.InducedNormPool(field_type(O2, *2 * [_induced(O2)[0]])))
    add("InnerBatchNorm", "one size", lambda: enn.InnerBatchNorm(regular(C4)))
    add("InnerBatchNorm", "mixed order, no affine", lambda: enn.InnerBatchNorm(_permuted(), affine=False))
    add("NormBatchNorm", "mixed order", lambda: enn.NormBatchNorm(field_type(SO2, 1, 2, 1)))
    add("NormBatchNorm", "two sizes", lambda: enn.NormBatchNorm(field_type(C4, 1, 2, 1)))
    add("GNormBatchNorm", "irreps", lambda: enn.GNormBatchNorm(_vectors()))
    add("GNormBatchNorm", "regular fields", lambda: enn.GNormBatchNorm(regular(D4)))
    add("GNormBatchNorm", "mixed, no affine", lambda: enn.GNormBatchNorm(_mixed(), affine=False))
    add(
        "InducedNormBatchNorm",
        "D4",
        lambda: enn.InducedNormBatchNorm(field_type(D4, *2 * [_induced(D4)[0]])),
    )
    add("FieldDropout", "eval", lambda: enn.FieldDropout(_mixed()))
    add("PointwiseDropout", "eval", lambda: enn.PointwiseDropout(regular(C4)))
    add("ReshuffleModule", "mixed", lambda: enn.ReshuffleModule(_mixed(), [4, 2, 0, 3, 1]))
    add("MaskModule", "margin", lambda: enn.MaskModule(_mixed(), 9, margin=2))
    add("RestrictionModule", "D4 to C4", _restricted)
    add("DisentangleModule", "interleaved vectors", lambda: enn.DisentangleModule(_interleaved()))
    add(
        "DisentangleModule",
        "restricted fields",
        lambda: enn.DisentangleModule(field_type(C8, "regular", 1).restrict(4)),
    )
    add("BranchingModule", "mixed order", lambda: enn.BranchingModule(_mixed(), ["b", "a", "b", "c", "a"]))
    add(
        "BranchingModule",
        "reshuffled",
        lambda: enn.BranchingModule(_mixed(), ["b", "a", "b", "c", "a"], reshuffle=2),
    )
    add("MergeModule", "behind a branching", Branches)
    add("MultipleModule", "two labels", lambda: _multiple(0))
    add("MultipleModule", "reshuffled", lambda: _multiple(1))
    add(
        "SequentialModule",
        "three layers",
        lambda: enn.SequentialModule(
            enn.R2Conv(field_type(C4, "trivial"), regular(C4), 3),
            enn.InnerBatchNorm(regular(C4)),
            enn.ReLU(regular(C4), inplace=True),
        ),
    )
    add("ModuleList", "two layers", Listed)
    add("IdentityModule", "plain", lambda: enn.IdentityModule(regular(C4)))
    return cases


def _interleaved() -> enn.FieldType:
    """Return two vectors whose components take turns, as one field, twice; and a scalar."""
    order = np.eye(4)[[0, 2, 1, 3]]
    pair = directsum([C4.irrep(1), C4.irrep(1)], change_of_basis=order, name="interleaved")
    return field_type(C4, pair, "trivial", pair)


def _restricted() -> torch.nn.Module:
    restriction = enn.RestrictionModule(regular(D4), (None, 4))
    return enn.SequentialModule(
        enn.R2Conv(regular(D4), regular(D4), 3), restriction, enn.R2Conv(restriction.out_type, regular(C4), 3)
    )


def _multiple(reshuffle: int) -> torch.nn.Module:
    in_type = field_type(SO2, 0, 1, 0, 2)
    scalars, vectors = field_type(SO2, 0, 0), field_type(SO2, 1, 2)
    return enn.MultipleModule(
        in_type,
        ["scalar", "vector", "scalar", "vector"],
        [(enn.ReLU(scalars), "scalar"), (enn.NormNonLinearity(vectors), "vector")],
        reshuffle=reshuffle,
    )


CASES: tuple[Case, ...] = tuple(_cases())
