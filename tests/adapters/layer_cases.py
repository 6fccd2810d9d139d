"""Examples of the layers, norms and pools that e2cnn and escnn share."""

from __future__ import annotations

from typing import Any

from library_kits import Kit
from module_cases import Case


def induced(kit: Kit, space: Any) -> tuple[Any, Any]:
    """Return an induced representation of a two-dimensional irrep, and one that can gate it."""
    group = space.fibergroup
    identity = (None, -1) if group.order() < 0 else (None, group.order() // 2)
    subgroup = group.subgroup(identity)[0]
    return (
        group.induced_representation(identity, subgroup.irrep(1)),
        group.induced_representation(identity, subgroup.trivial_representation),
    )


def mixed(kit: Kit) -> Any:
    """Return fields of several sizes, none next to its like."""
    return kit.field_type(kit.c4, "regular", "trivial", "regular", 1, "trivial")


def permuted(kit: Kit) -> Any:
    """Return permuted fields of two sizes, none next to its like."""
    return kit.field_type(kit.c4, "regular", "trivial", "regular", "trivial")


def vectors(kit: Kit) -> Any:
    """Return scalars and vectors of SO(2) in turns."""
    return kit.field_type(kit.so2, 1, 0, 2, 0, 1)


def layer_cases(kit: Kit) -> list[Case]:
    """Return examples of convolutions, batch norms and pools."""
    enn, regular, field_type = kit.enn, kit.regular, kit.field_type
    c4, c8, d4, so2, o2 = kit.c4, kit.c8, kit.d4, kit.so2, kit.o2
    cases = {
        **_convolutions(kit),
        "R2Upsampling: scale": lambda: enn.R2Upsampling(regular(c4), 2),
        "R2Upsampling: size": lambda: enn.R2Upsampling(regular(c4), size=13),
        "R2Upsampling: align_corners": lambda: enn.R2Upsampling(regular(c4), 2, align_corners=True),
        "R2Upsampling: nearest": lambda: enn.R2Upsampling(regular(c4), 2, mode="nearest"),
        "PointwiseMaxPool: plain": lambda: enn.PointwiseMaxPool(regular(c4), 3, 2, 1),
        "PointwiseMaxPool: ceil_mode": lambda: enn.PointwiseMaxPool(regular(c4), 2, ceil_mode=True),
        "PointwiseMaxPool: dilation": lambda: enn.PointwiseMaxPool(regular(c4), 2, dilation=2),
        "PointwiseMaxPoolAntialiased: stride": lambda: enn.PointwiseMaxPoolAntialiased(regular(c4), 3, 2, 1),
        "PointwiseAvgPool: padding": lambda: enn.PointwiseAvgPool(regular(c4), 3, 2, 1),
        "PointwiseAvgPool: ceil_mode": lambda: enn.PointwiseAvgPool(mixed(kit), 2, ceil_mode=True),
        "PointwiseAvgPoolAntialiased: stride": lambda: enn.PointwiseAvgPoolAntialiased(mixed(kit), 0.66, 2),
        "PointwiseAdaptiveAvgPool: 3×3": lambda: enn.PointwiseAdaptiveAvgPool(regular(c4), 3),
        "PointwiseAdaptiveMaxPool: 3×2": lambda: enn.PointwiseAdaptiveMaxPool(regular(c4), (3, 2)),
        "PointwiseAdaptiveMaxPool: 1×1": lambda: enn.PointwiseAdaptiveMaxPool(regular(c4), 1),
        "NormMaxPool: one size": lambda: enn.NormMaxPool(field_type(so2, 1, 2), 3, 2, 1),
        "NormMaxPool: mixed order": lambda: enn.NormMaxPool(vectors(kit), 2),
        "GroupPooling: one size": lambda: enn.GroupPooling(regular(c8)),
        "GroupPooling: mixed order": lambda: enn.GroupPooling(permuted(kit)),
        "NormPool: mixed order": lambda: enn.NormPool(vectors(kit)),
        "InducedNormPool: O(2)": lambda: enn.InducedNormPool(field_type(o2, *2 * [induced(kit, o2)[0]])),
        "InnerBatchNorm: one size": lambda: enn.InnerBatchNorm(regular(c4)),
        "InnerBatchNorm: mixed order, no affine": lambda: enn.InnerBatchNorm(permuted(kit), affine=False),
        "NormBatchNorm: mixed order": lambda: enn.NormBatchNorm(field_type(so2, 1, 2, 1)),
        "NormBatchNorm: two sizes": lambda: enn.NormBatchNorm(field_type(c4, 1, 2, 1)),
        "GNormBatchNorm: irreps": lambda: enn.GNormBatchNorm(vectors(kit)),
        "GNormBatchNorm: regular fields": lambda: enn.GNormBatchNorm(regular(d4)),
        "GNormBatchNorm: mixed, no affine": lambda: enn.GNormBatchNorm(mixed(kit), affine=False),
        "InducedNormBatchNorm: D4": lambda: enn.InducedNormBatchNorm(
            field_type(d4, *2 * [induced(kit, d4)[0]])
        ),
    }
    return [Case(kit, *name.split(": ", 1), build) for name, build in cases.items()]


def _convolutions(kit: Kit) -> dict[str, Any]:
    enn, regular, field_type = kit.enn, kit.regular, kit.field_type
    c4, so2, o2 = kit.c4, kit.so2, kit.o2
    spaces = {"C4": c4, "C8": kit.c8, "D4": kit.d4, "flips": kit.one_axis}
    return {
        **{
            f"R2Conv: {name}, 3×3": lambda s=space: enn.R2Conv(
                field_type(s, "trivial"), regular(s), 3, padding=1
            )
            for name, space in spaces.items()
        },
        "R2Conv: 1×1, mixed fields": lambda: enn.R2Conv(mixed(kit), mixed(kit), 1),
        "R2Conv: 5×5, stride, no bias": lambda: enn.R2Conv(regular(c4), regular(c4), 5, stride=2, bias=False),
        "R2Conv: dilation, groups": lambda: enn.R2Conv(regular(c4), regular(c4), 3, dilation=2, groups=2),
        **{
            f"R2Conv: {mode}": lambda m=mode: enn.R2Conv(
                regular(c4), regular(c4), 3, padding=1, padding_mode=m
            )
            for mode in ("reflect", "replicate", "circular")
        },
        "R2Conv: padding of a pair": lambda: enn.R2Conv(regular(c4), regular(c4), 3, padding=(1, 0)),
        "R2Conv: SO(2), irreps": lambda: enn.R2Conv(vectors(kit), field_type(so2, 0, 1), 3),
        "R2Conv: O(2), irreps": lambda: enn.R2Conv(field_type(o2, (0, 0), (1, 1)), field_type(o2, (1, 1)), 3),
        "R2ConvTransposed: stride": lambda: enn.R2ConvTransposed(regular(c4), regular(c4), 3, stride=2),
        "R2ConvTransposed: output_padding": lambda: enn.R2ConvTransposed(
            regular(c4), regular(c4), 3, padding=1, stride=2, output_padding=1
        ),
        "R2ConvTransposed: groups": lambda: enn.R2ConvTransposed(
            regular(c4), regular(c4), 3, groups=2, bias=False
        ),
    }
