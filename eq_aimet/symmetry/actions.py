"""Actions: the effect of one group element on the channels and the kernel of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.layers import describe_blocks

__all__ = ["Action", "regular_actions"]


@dataclass(frozen=True)
class Action:
    """The effect of one group element on a layer.

    The action maps the weights onto themselves. Let `turn` mirror the k×k grid (if `flip`) and then turn it
    counter-clockwise by `turns` quarter turns. Then a symmetric weight of shape (out, in, k, k) satisfies
    `weight[permutation_out[o], permutation_in[i]] == turn(weight[o, i])` for all channels o and i.

    Attributes:
        permutation_in: The new position of each input channel; a permutation of 0 … in−1.
        permutation_out: The new position of each output channel; a permutation of 0 … out−1.
        turns: Quarter turns of the grid, 0 to 3, counter-clockwise when the first row is on top.
        flip: Whether the grid's columns are mirrored before the turn.
    """

    permutation_in: tuple[int, ...]
    permutation_out: tuple[int, ...]
    turns: int = 0
    flip: bool = False

    def __repr__(self) -> str:
        return f"Action(turns={self.turns}, flip={self.flip})"


def regular_actions(
    blocks_in: Sequence[int], blocks_out: Sequence[int], *, order: int, kernel_size: int = 1
) -> tuple[Action, ...]:
    """Return the generators of C_N's exact elements for a layer between regular and trivial fields.

    A turn by 360°/N shifts a block of N channels cyclically by one, and does not move a block of one channel.
    For 1×1 kernels every element is exact. For larger kernels only the elements that turn the grid by a
    multiple of 90° are exact.

    Args:
        blocks_in: Sizes of the input blocks, each `order` or 1.
        blocks_out: Sizes of the output blocks, each `order` or 1.
        order: N of the group C_N.
        kernel_size: k of the k×k kernel.

    Example:
        >>> regular_actions([1], [8], order=8, kernel_size=3)
        (Action(turns=1, flip=False),)
        >>> regular_actions([1], [8], order=8, kernel_size=3)[0].permutation_out
        (2, 3, 4, 5, 6, 7, 0, 1)
    """
    for argument, sizes in (("blocks_in", blocks_in), ("blocks_out", blocks_out)):
        if any(size not in (1, order) for size in sizes):
            raise InvalidArgumentError(
                argument,
                received=describe_blocks(tuple(sizes)),
                expected=f"blocks of 1 or {order} channels",
                remedy="Write the `Action`s of other representations out by hand.",
            )
    if order == 1:
        return ()
    if kernel_size == 1:
        shift, turns = 1, 0
    else:
        quarter_turns = np.gcd(order, 4)  # the group's elements that turn the grid onto itself
        if quarter_turns == 1:
            return ()
        shift, turns = order // int(quarter_turns), 4 // int(quarter_turns)
    return (Action(_shift(blocks_in, shift), _shift(blocks_out, shift), turns),)


def _shift(blocks: Sequence[int], shift: int) -> tuple[int, ...]:
    permutation: list[int] = []
    for size in blocks:
        start = len(permutation)
        permutation += [start + (channel + shift) % size for channel in range(size)]
    return tuple(permutation)
