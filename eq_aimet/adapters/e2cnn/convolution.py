"""e2cnn's convolution built fast, and the channel-wise depthwise convolution that e2cnn lacks."""

from __future__ import annotations

from typing import Any

import torch
from e2cnn.nn import FieldType, R2Conv

from eq_aimet.adapters.e2cnn.construction import fast_constructor
from eq_aimet.adapters.e2cnn.grouped import GroupedR2Conv
from eq_aimet.adapters.e2cnn.initialization import generalized_he_init
from eq_aimet.adapters.twins.layers import convolution
from eq_aimet.errors import InvalidArgumentError

__all__ = ["ChannelwiseR2Conv", "build_convolution"]


def build_convolution(
    in_type: FieldType, out_type: FieldType, kernel_size: int, *, initialize: bool = True, **options: Any
) -> R2Conv:
    """Return the `e2cnn.nn.R2Conv` that e2cnn's constructor gives, in a fraction of the time.

    Weights (with the same seed), state dict and, up to rounding, outputs and gradients are those of
    `R2Conv(in_type, out_type, kernel_size, **options)`. What differs is how they are come by: see
    `LazyBlocksBasisExpansion`, `generalized_he_init` and, with `groups`, `GroupedR2Conv`.

    Args:
        in_type: the input's field type.
        out_type: the output's field type.
        kernel_size: the side of the filter in pixels.
        initialize: whether to draw the weights; they are zero otherwise.
        **options: `stride`, `padding`, `groups`, `bias` and whatever else `R2Conv` takes.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> conv = build_convolution(regular, regular, 3, padding=1, bias=False)
    >>> type(conv) is nn.R2Conv, conv.weights.shape
    (True, torch.Size([96]))
    """
    kind = GroupedR2Conv if options.get("groups", 1) > 1 else R2Conv
    conv = kind.__new__(kind)
    fast_constructor(R2Conv)(conv, in_type, out_type, kernel_size, initialize=False, **options)
    if initialize:
        generalized_he_init(conv)
    return conv


class ChannelwiseR2Conv(R2Conv):
    """A depthwise equivariant convolution that filters each channel of a regular field by itself.

    Its kernel is K[g, g'] = δ[g, g']·k(g⁻¹x): the filter of a lifting convolution trivial → regular, one
    per field, of shape (F·N, 1, k, k), used with one group per channel. It costs what the conventional
    depthwise convolution costs, where e2cnn's depthwise (`groups` = number of fields) mixes the N channels
    of each block.

    It is an `R2Conv` in whatever it does: it expands the filter at each step in training and keeps it in
    the buffer `filter` in eval mode. `export` alone differs: it clones and leaves the mode alone.

    Args:
        in_type: the field type of input and output, F regular fields of one finite group, of order N.
        kernel_size: the side of the filter in pixels.
        stride: the stride in pixels.
        padding: zeros put around the input, in pixels.
        dilation: the distance between the filter's taps in pixels.
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        bias: whether to add one learnt number per field.
        initialize: whether to draw the weights (He); they are zero otherwise.

    Raises:
        InvalidArgumentError: if `in_type` has fields that are not regular.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> conv = ChannelwiseR2Conv(regular, 3, padding=1)
    >>> conv.export()
    Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=8)
    """

    def __init__(
        self,
        in_type: FieldType,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
        initialize: bool = True,
    ) -> None:
        gspace = in_type.gspace
        regular = gspace.regular_repr if gspace.fibergroup.order() > 0 else None
        others = {field.name for field in in_type.representations if field != regular}
        if others:
            raise InvalidArgumentError(
                "in_type",
                received=f"fields {', '.join(sorted(others))}",
                expected=f"regular fields of {gspace.name}",
                remedy="Use R2Conv with groups=len(in_type) for other fields.",
            )
        fast_constructor(R2Conv)(
            self,
            FieldType(gspace, [gspace.trivial_repr]),
            in_type,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            padding_mode=padding_mode,
            bias=bias,
            initialize=False,
        )
        if initialize:
            generalized_he_init(self)
        # The basis stays that of the lifting; applied with a group per channel it maps the regular fields
        # to themselves.
        self.in_type = in_type
        self.groups = in_type.size

    def export(self) -> torch.nn.Conv2d:
        """Return a new `Conv2d` in eval mode, with weights of its own; this module keeps its mode."""
        return convolution(self).eval()
