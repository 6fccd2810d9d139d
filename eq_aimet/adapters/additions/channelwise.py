"""The channel-wise depthwise convolution, which no library has, for every library."""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.adapters.plain_twins.layers import convolution
from eq_aimet.errors import InvalidArgumentError

__all__ = ["ChannelwiseParts"]


class ChannelwiseParts(torch.nn.Module):
    """Filters each channel of a regular field by itself; an adapter joins it to its library's `R2Conv`.

    Its kernel is K[g, g'] = δ[g, g']·k(g⁻¹x): the filter of a lifting convolution trivial → regular, one
    per field, of shape (F·N, 1, k, k), used with one group per channel. It costs the same as the
    conventional depthwise convolution. The libraries' own depthwise convolution (`groups` = number of
    fields) instead mixes the N channels of each block.

    It works like an `R2Conv`: in training it expands the filter at each step, and in eval mode it keeps the
    filter in the buffer `filter`. Only `export` differs: it clones the weights and leaves the mode of this
    module unchanged.

    Args:
        in_type: The field type of input and output, F regular fields of one finite group, of order N.
        kernel_size: The side of the filter in pixels.
        initialize: Whether to draw the weights by He's initialisation. If `False`, the weights are zero.
        **options: `stride`, `padding`, `dilation`, `padding_mode` and `bias`, as `R2Conv` takes them.

    Raises:
        InvalidArgumentError: If `in_type` has fields that are not regular.
    """

    def __init__(self, in_type: Any, kernel_size: int, *, initialize: bool = True, **options: Any) -> None:
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
        scalar = type(in_type)(gspace, [gspace.trivial_repr])
        self._build_lifting(scalar, in_type, kernel_size, initialize=initialize, **options)
        # The basis stays the basis of the lifting convolution. With one group per channel, this basis maps
        # the regular fields to themselves.
        self.in_type = in_type
        self.groups = in_type.size

    def _build_lifting(
        self, in_type: Any, out_type: Any, kernel_size: int, *, initialize: bool, **options: Any
    ) -> None:
        """Construct this module as the library's `R2Conv` from the type of one scalar to the fields."""
        raise NotImplementedError

    def export(self) -> torch.nn.Module:
        """Return a new `Conv2d` in eval mode, with weights of its own; this module keeps its mode."""
        return convolution(self).eval()
