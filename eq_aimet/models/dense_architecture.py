"""The DenseNets' channels and grids for a width, a group order and an input size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eq_aimet.arguments import check_integer, check_number
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models.architecture import WIDEST

__all__ = ["DenseArchitecture", "DenseBlockPlan", "plan_dense_architecture", "pooling_window"]

DENSE_BLOCKS = 5
# With this growth, the conventional network and its equivariant counterparts have about 128,000 weights each.
GROWTH = 26
# On a final grid of one pixel, the last 3×3 filters would see only padding around the pixel.
SMALLEST_FINAL_GRID = 2


@dataclass(frozen=True)
class DenseBlockPlan:
    """The sizes of one dense block and of the transition before it.

    Attributes:
        in_fields: The number of fields that the block receives.
        window: The side in pixels of the windows that the transition averages; 0 without a transition.
        growth: The number of fields that the block adds.
    """

    in_fields: int
    window: int
    growth: int

    @property
    def out_fields(self) -> int:
        """The number of fields that the block outputs: its input fields and the fields that it adds."""
        return self.in_fields + self.growth


@dataclass(frozen=True)
class DenseArchitecture:
    """The sizes of a DenseNet; in the conventional network, a field is one channel."""

    input_size: int
    blocks: tuple[DenseBlockPlan, ...]
    final_size: int

    @property
    def stem_fields(self) -> int:
        """The number of fields after the first convolution."""
        return self.blocks[0].in_fields

    @property
    def out_fields(self) -> int:
        """The number of fields that the network pools for its classifier."""
        return self.blocks[-1].out_fields


def plan_dense_architecture(*, width: float, order: int, input_size: int) -> DenseArchitecture:
    """Return the fields, pooling windows and grids of a DenseNet.

    A convolution between F fields of a group with |G| elements has F²·|G| weights per pixel of the filter.
    With 26·width/√|G| fields per layer, the number of weights is therefore about the same for any group.

    Args:
        width: The multiplier of the channel counts.
        order: |G|, the number of channels of a field; 1 for the conventional network.
        input_size: The side of the square input in pixels.

    Raises:
        InvalidArgumentError: If a layer would have less than one field, or if the side of the last grid
            would be shorter than two pixels.

    Example:
        >>> plan = plan_dense_architecture(width=1.0, order=8, input_size=95)
        >>> [block.out_fields for block in plan.blocks], plan.final_size
        ([18, 27, 36, 45, 54], 5)
    """
    check_integer("input_size", input_size, remedy="Give the side of the images in pixels, for example 95.")
    growth = _growth(width, order)
    blocks = [DenseBlockPlan(growth, 0, growth)]
    grid = input_size
    while len(blocks) < DENSE_BLOCKS:
        blocks.append(DenseBlockPlan(blocks[-1].out_fields, pooling_window(grid), growth))
        grid //= 2
    smallest = SMALLEST_FINAL_GRID * 2 ** (DENSE_BLOCKS - 1)
    if grid < SMALLEST_FINAL_GRID:
        raise InvalidArgumentError(
            "input_size",
            received=input_size,
            expected=f"at least {smallest}, which leaves a final grid of {SMALLEST_FINAL_GRID}",
            remedy=f"Pad or resize the input to {smallest} or more.",
        )
    return DenseArchitecture(input_size, tuple(blocks), grid)


def pooling_window(size: int) -> int:
    """Return the side of pooling windows with stride 2 that cover a grid symmetrically about its centre.

    An even grid gets windows of 2×2 pixels. An odd grid gets windows of 3×3 pixels, which overlap. Quarter
    turns and mirrorings of the grid map these windows onto each other, so that pooling is equivariant.

    Args:
        size: The side of the grid in pixels.

    Example:
        >>> pooling_window(46), pooling_window(95)  # to 23 and to 47
        (2, 3)
    """
    return 2 + size % 2


def _growth(width: float, order: int) -> int:
    narrowest = math.sqrt(order) / GROWTH
    check_number("width", width, most=WIDEST, remedy="Try 1, the full network.")
    if width < narrowest:
        raise InvalidArgumentError(
            "width",
            received=repr(width),
            expected=f"at least {narrowest:.3g}, at which a layer is one field "
            f"of {order} channel{'' if order == 1 else 's'}",
            remedy="Widen the network or take a smaller group.",
        )
    return round(GROWTH * width / math.sqrt(order))
