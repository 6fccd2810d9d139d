"""Grouped convolutions in groups of the width for which the processor has fast code."""

from __future__ import annotations

import math
from typing import Any

import torch
from e2cnn.nn import R2Conv

from eq_aimet.adapters.mending.rebinding import rebind

__all__ = ["GroupedR2Conv", "convolve_in_wide_groups"]

# oneDNN has fast convolutions for groups of at least this number of channels: the numbers that fit into one
# vector register of AVX2.
_FAST_WIDTH = 8


def convolve_in_wide_groups(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    groups: int = 1,
    **options: Any,
) -> torch.Tensor:
    """Return `torch.nn.functional.conv2d` of the arguments; on a CPU, narrow groups are merged.

    For groups of 2 or 4 channels, torch's CPU library uses slower code than for groups of 8 channels. So
    this function merges several groups into one group of 8 channels. The filter of the merged group is zero
    between the original groups. The merged convolution needs four or two times the products, but its code is
    faster. Outputs and gradients are the same up to rounding.

    Args:
        input: The images, (B, C_in, H, W).
        weight: The filter, (C_out, C_in / groups, k, k).
        bias: One number per output channel, (C_out,).
        groups: The number of groups that the channels form.
        **options: `stride`, `padding` and `dilation`.

    >>> x, weight = torch.randn(1, 24, 5, 5), torch.randn(24, 4, 3, 3)
    >>> expected = torch.nn.functional.conv2d(x, weight, groups=6)
    >>> torch.allclose(convolve_in_wide_groups(x, weight, groups=6), expected, atol=1e-5)
    True
    """
    width = weight.shape[1]
    together = 1
    if input.device.type == "cpu" and width > 1 and _FAST_WIDTH % width == 0:
        together = math.gcd(groups, _FAST_WIDTH // width)
    if together > 1:
        narrow = weight.unflatten(0, (groups // together, together, -1))  # [wide, narrow, out, in, k, k]
        wide = narrow.movedim(1, -1).diag_embed(dim1=1, dim2=3)  # [wide, narrow, out, narrow, in, k, k]
        weight = wide.flatten(3, 4).flatten(0, 2)
    return torch.nn.functional.conv2d(input, weight, bias, groups=groups // together, **options)


class GroupedR2Conv(R2Conv):
    """e2cnn's `R2Conv`, which here convolves by `convolve_in_wide_groups`; the rest is e2cnn's code.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> GroupedR2Conv(regular, regular, 3, groups=2).export()
    Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), groups=2)
    """

    forward = rebind(R2Conv.forward, conv2d=convolve_in_wide_groups)
