"""The DenseNets' channels and grids, as they follow from width, group order and input size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eq_aimet.arguments import check_integer, check_number
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models.architecture import WIDEST

__all__ = ["DenseArchitecture", "DenseBlockPlan", "plan_dense_architecture", "pooling_window"]

DENSE_BLOCKS = 5
# The growth of the conventional network, with which its weights and those of its twins are about 128,000.
GROWTH = 26
# On a final grid of one pixel the last 3×3 filters would have nothing but padding around their centre.
SMALLEST_FINAL_GRID = 2


@dataclass(frozen=True)
class DenseBlockPlan:
    """One dense block in numbers, and the transition before it.

    Attributes:
        in_fields: The fields that the block before hands on.
        window: The side in pixels of the windows that the transition averages; 0 where there is none.
        growth: The fields that the block adds.
    """

    in_fields: int
    window: int
    growth: int

    @property
    def out_fields(self) -> int:
        """The fields that the block hands on: what it reads and what it adds."""
        return self.in_fields + self.growth


@dataclass(frozen=True)
class DenseArchitecture:
    """A DenseNet in numbers; a field is one channel of the conventional network."""

    input_size: int
    blocks: tuple[DenseBlockPlan, ...]
    final_size: int

    @property
    def stem_fields(self) -> int:
        """The fields after the first convolution."""
        return self.blocks[0].in_fields

    @property
    def out_fields(self) -> int:
        """The fields that are pooled for the classifier."""
        return self.blocks[-1].out_fields


def plan_dense_architecture(*, width: float, order: int, input_size: int) -> DenseArchitecture:
    """Return the fields, pooling windows and grids of a DenseNet.

    A convolution between F fields of a group with |G| elements has F²·|G| weights per pixel of the filter,
    so that 26·width/√|G| fields per layer make about the same number of weights for any group.

    Args:
        width: The multiplier of the channel counts.
        order: |G|, the number of channels of a field; 1 for the conventional network.
        input_size: The side of the square input in pixels.

    Raises:
        InvalidArgumentError: If a layer would have less than one field, or the last grid less than two
            pixels a side.

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
    """Return the side of the windows that, two pixels apart, cover a grid evenly about its centre.

    Turns and mirrorings of the grid map such windows onto each other, so that pooling is equivariant: on an
    even grid windows of 2×2, on an odd one windows of 3×3 that overlap.

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
