"""escnn's convolution, and the channel-wise depthwise convolution that escnn lacks."""

from __future__ import annotations

from typing import Any

from escnn.nn import FieldType, R2Conv

from eq_aimet.adapters.additions.channelwise import ChannelwiseParts

__all__ = ["ChannelwiseR2Conv"]


class ChannelwiseR2Conv(ChannelwiseParts, R2Conv):
    """A depthwise equivariant convolution that filters each channel of a regular field by itself.

    See `ChannelwiseParts` for its arguments.

    Example:
        >>> from eq_aimet.adapters.escnn import enn, gspaces
        >>> gspace = gspaces.rot2dOnR2(4)
        >>> regular = enn.FieldType(gspace, 2 * [gspace.regular_repr])
        >>> ChannelwiseR2Conv(regular, 3, padding=1).export()
        Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=8)
    """

    def _build_lifting(
        self, in_type: FieldType, out_type: FieldType, kernel_size: int, *, initialize: bool, **options: Any
    ) -> None:
        R2Conv.__init__(self, in_type, out_type, kernel_size, initialize=initialize, **options)
