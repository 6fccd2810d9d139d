"""The table of escnn's modules: for each class, the function that returns its plain twin in eval mode."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import torch
from escnn import nn as enn

from eq_aimet.adapters.escnn import layers, nonlinearities
from eq_aimet.adapters.escnn.convolution import ChannelwiseR2Conv
from eq_aimet.adapters.escnn.groups import PLANAR_GROUPS
from eq_aimet.adapters.escnn.mask import CircularMask
from eq_aimet.adapters.escnn.tensor_product import tensor_product
from eq_aimet.adapters.library import Composite, Converter
from eq_aimet.adapters.plain_twins.layers import channelwise_convolution
from eq_aimet.adapters.plain_twins.table import shared_composites, shared_converters, shared_traced_through
from eq_aimet.errors import ExportError

__all__ = ["COMPOSITES", "CONVERTERS", "REASONS", "REFUSED", "TRACED_THROUGH"]

COMPOSITES: dict[type, Composite] = shared_composites(enn)
TRACED_THROUGH: frozenset[type] = frozenset(shared_traced_through(enn))

_SPACE = "works on three-dimensional space; eq_aimet exports networks on the plane"
_POINTS = "works on scattered points: its filter depends on their coordinates, unlike that of a convolution"
# Public classes of `escnn.nn` that have no plain twin, and the reason.
REASONS = {
    **dict.fromkeys(
        (
            "R3Conv",
            "R3ConvTransposed",
            "R3IcoConv",
            "R3IcoConvTransposed",
            "R3Upsampling",
            "PointwiseMaxPool3D",
            "PointwiseMaxPoolAntialiased3D",
            "PointwiseAvgPool3D",
            "PointwiseAvgPoolAntialiased3D",
            "PointwiseAdaptiveAvgPool3D",
            "PointwiseAdaptiveMaxPool3D",
            "IIDBatchNorm3d",
            "HarmonicPolynomialR3",
            "R3PointConv",
        ),
        _SPACE,
    ),
    "R2PointConv": _POINTS,
}
# escnn has the modules for point clouds only if torch_geometric is installed.
REFUSED: dict[type, str] = {
    getattr(enn, name): reason for name, reason in REASONS.items() if hasattr(enn, name)
}


def _refuse(reason: str, module: torch.nn.Module) -> NoReturn:
    raise ExportError(
        f"`{type(module).__name__}` of escnn {reason}. Replace the module, or register a plugin whose "
        "`eq_aimet_export_module` returns a plain module for it."
    )


def _on_plane(convert: Converter, module: Any) -> torch.nn.Module:
    """Return the plain twin of a module whose space is the plane, or one point of it."""
    in_type = getattr(module, "in_type", None)
    for field_type in in_type if isinstance(in_type, (tuple, list)) else (in_type,):
        space = getattr(field_type, "gspace", None)
        if space is None:  # `MaxPoolChannels` takes plain tensors
            continue
        if space.dimensionality not in (0, 2) or not isinstance(space.fibergroup, PLANAR_GROUPS):
            raise ExportError(
                f"`{type(module).__name__}` of escnn works with the group {space.fibergroup.name} on a space "
                f"of {space.dimensionality} dimensions; eq_aimet exports the groups of the plane (C_N, D_N, "
                "SO(2) and O(2)) on the plane or on a point. Take a space of `escnn.gspaces` for the plane, "
                "for example `gspaces.rot2dOnR2(4)`."
            )
    return convert(module)


_OWN: dict[type, Converter] = {
    enn.Linear: layers.linear,
    enn.IIDBatchNorm1d: layers.iid_batch_norm,
    enn.IIDBatchNorm2d: layers.iid_batch_norm,
    enn.LeakyReLU: nonlinearities.leaky_relu,
    enn.GatedNonLinearityUniform: nonlinearities.uniformly_gated,
    enn.FourierPointwise: nonlinearities.fourier,
    enn.FourierELU: nonlinearities.fourier,
    enn.QuotientFourierPointwise: nonlinearities.fourier,
    enn.QuotientFourierELU: nonlinearities.fourier,
    enn.TensorProductModule: tensor_product,
    ChannelwiseR2Conv: channelwise_convolution,
    CircularMask: lambda module: module.export(),
}
CONVERTERS: dict[type, Converter] = {
    **{
        kind: functools.partial(_on_plane, convert)
        for kind, convert in {**shared_converters(enn), **_OWN}.items()
    },
    **{kind: functools.partial(_refuse, reason) for kind, reason in REFUSED.items()},
}
