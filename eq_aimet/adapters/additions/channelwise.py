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
    per field, of shape (F·N, 1, k, k), used with one group per channel. It costs what the conventional
    depthwise convolution costs, where the libraries' depthwise (`groups` = number of fields) mixes the N
    channels of each block.

    It is an `R2Conv` in whatever it does: it expands the filter at each step in training and keeps it in
    the buffer `filter` in eval mode. `export` alone differs: it clones and leaves the mode alone.

    Args:
        in_type: The field type of input and output, F regular fields of one finite group, of order N.
        kernel_size: The side of the filter in pixels.
        initialize: Whether to draw the weights (He); they are zero otherwise.
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
        # The basis stays that of the lifting; applied with a group per channel it maps the regular fields
        # to themselves.
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
