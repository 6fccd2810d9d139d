"""Grouped convolutions, as wide as the processor likes them."""

from __future__ import annotations

import math
from typing import Any

import torch
from e2cnn.nn import R2Conv

from eq_aimet.adapters.mending.rebinding import rebind

__all__ = ["GroupedR2Conv", "convolve_in_wide_groups"]

# Channels of a group from which oneDNN has fast convolutions: the numbers in a vector register of AVX2.
_FAST_WIDTH = 8


def convolve_in_wide_groups(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    groups: int = 1,
    **options: Any,
) -> torch.Tensor:
    """Return `torch.nn.functional.conv2d` of the arguments, on a CPU with narrow groups put together.

    For groups of 2 or 4 channels torch's CPU library falls back to code that is slower than that for
    groups of 8, with four or two times the products. So several groups become one of 8 channels, whose
    filter is zero between them. Outputs and gradients are the same up to rounding.

    Args:
        input: the images, (B, C_in, H, W).
        weight: the filter, (C_out, C_in / groups, k, k).
        bias: a number per output channel, (C_out,).
        groups: how many groups the channels form.
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
    """e2cnn's `R2Conv` that convolves by `convolve_in_wide_groups`; all else is e2cnn's.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> GroupedR2Conv(regular, regular, 3, groups=2).export()
    Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), groups=2)
    """

    forward = rebind(R2Conv.forward, conv2d=convolve_in_wide_groups)
