"""Rotation blocks: which adjacent channels of a layer form one field, and what the group does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = [
    "Action",
    "LayerBlocks",
    "TagHandle",
    "channel_counts",
    "is_blockwise_depthwise",
    "is_convolution",
    "is_layer",
    "is_transposed",
    "regular_actions",
    "stored_blocks",
    "tag_blocks",
]

_ATTRIBUTE = "eq_aimet_blocks"

_CONVOLUTIONS = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)
_TRANSPOSED = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d)


@dataclass(frozen=True)
class Action:
    """What one group element does to a layer.

    It maps the weights onto themselves: with `turn` mirroring the k×k grid (if `flip`) and then turning it
    counter-clockwise by `turns` quarter turns, a symmetric weight of shape (out, in, k, k) satisfies
    `weight[permutation_out[o], permutation_in[i]] == turn(weight[o, i])` for all channels o and i.

    Attributes:
        permutation_in: Where each input channel goes; a permutation of 0 … in−1.
        permutation_out: Where each output channel goes; a permutation of 0 … out−1.
        turns: Quarter turns of the grid, 0 to 3, counter-clockwise when the first row is on top.
        flip: Whether the grid's columns are mirrored before the turn.
    """

    permutation_in: tuple[int, ...]
    permutation_out: tuple[int, ...]
    turns: int = 0
    flip: bool = False

    def __repr__(self) -> str:
        return f"Action(turns={self.turns}, flip={self.flip})"


@dataclass(frozen=True)
class LayerBlocks:
    """The rotation blocks of one layer, and the actions of the exact group elements on it.

    Attributes:
        blocks_in: Sizes of the blocks of the input channels, in channel order; they add up to the channels.
        blocks_out: The same for the output channels.
        actions: Generators of the elements that map weights onto weights; empty where nothing is known.
    """

    blocks_in: tuple[int, ...]
    blocks_out: tuple[int, ...]
    actions: tuple[Action, ...] = ()

    def __repr__(self) -> str:
        return (
            f"LayerBlocks({_describe(self.blocks_in)} -> {_describe(self.blocks_out)}, "
            f"{len(self.actions)} action{'' if len(self.actions) == 1 else 's'})"
        )


@dataclass(frozen=True)
class TagHandle:
    """Undoes one `tag_blocks`: `remove()` puts back what the layer carried before."""

    layer: torch.nn.Module
    previous: LayerBlocks | None

    def remove(self) -> None:
        """Restore the layer's former blocks, in place."""
        if self.previous is None:
            self.layer.__dict__.pop(_ATTRIBUTE, None)
        else:
            setattr(self.layer, _ATTRIBUTE, self.previous)


def _describe(blocks: tuple[int, ...]) -> str:
    """Return e.g. `20×8 + 4×1` for twenty blocks of eight channels and four of one."""
    return " + ".join(f"{len(list(run))}×{size}" for size, run in groupby(blocks)) or "none"


def is_convolution(module: torch.nn.Module) -> bool:
    """Return whether `module` is a convolution that cross-layer equalization knows."""
    return isinstance(module, _CONVOLUTIONS)


def is_layer(module: torch.nn.Module) -> bool:
    """Return whether `module` is a layer whose channels can be scaled: a convolution or a linear layer."""
    return isinstance(module, (*_CONVOLUTIONS, torch.nn.Linear))


def is_transposed(module: torch.nn.Module) -> bool:
    """Return whether `module` is a transposed convolution, whose weight is (in, out/groups, …)."""
    return isinstance(module, _TRANSPOSED)


def channel_counts(layer: torch.nn.Module) -> tuple[int, int] | None:
    """Return the (input, output) channels of a convolution, linear layer or 2D batch norm, else `None`."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, torch.nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
        return layer.num_features, layer.num_features
    return None


def is_blockwise_depthwise(layer: torch.nn.Module, blocks: LayerBlocks | None) -> bool:
    """Return whether the groups of a convolution are its blocks, so that it mixes no two blocks.

    A channel-wise depthwise convolution (`groups == in_channels == out_channels`) is not meant here.
    """
    if blocks is None or not isinstance(layer, _CONVOLUTIONS):
        return False
    if layer.groups == 1 or layer.in_channels != layer.out_channels or layer.groups == layer.in_channels:
        return False
    group_size = layer.in_channels // layer.groups
    uniform = (group_size,) * layer.groups
    return blocks.blocks_in == uniform and blocks.blocks_out == uniform


def stored_blocks(module: torch.nn.Module) -> LayerBlocks | None:
    """Return the blocks that `tag_blocks` or the export put on `module`, or `None`."""
    blocks = module.__dict__.get(_ATTRIBUTE)
    return blocks if isinstance(blocks, LayerBlocks) else None


def tag_blocks(
    layer: torch.nn.Module,
    blocks_in: int | Sequence[int],
    blocks_out: int | Sequence[int] | None = None,
    *,
    actions: Sequence[Action] = (),
) -> TagHandle:
    """Put rotation blocks on `layer`, in place, for a model that does not come from e2cnn.

    Args:
        layer: A convolution, linear layer or batch norm.
        blocks_in: Sizes of the blocks of the input channels in channel order, or one size for all.
        blocks_out: The same for the output channels; `blocks_in` if left out.
        actions: What the exact group elements do to the layer, see `regular_actions`.

    Returns:
        A handle whose `remove()` undoes the tag.

    Raises:
        InvalidArgumentError: If the blocks do not add up to the channels, or an action does not fit them.

    Example:
        >>> import torch
        >>> from eq_aimet import layer_blocks, tag_blocks
        >>> convolution = torch.nn.Conv2d(8, 16, 3)
        >>> handle = tag_blocks(convolution, 4)
        >>> layer_blocks(convolution)
        LayerBlocks(2×4 -> 4×4, 0 actions)
        >>> handle.remove()
        >>> layer_blocks(convolution) is None
        True
    """
    counts = channel_counts(layer) if isinstance(layer, torch.nn.Module) else None
    if counts is None:
        raise InvalidArgumentError(
            "layer",
            received=type(layer).__name__,
            expected="a convolution, torch.nn.Linear or a batch norm",
            remedy="Tag the layers that have channels; the modules between them need no tag.",
        )
    blocks = LayerBlocks(
        _sizes("blocks_in", blocks_in, counts[0]),
        _sizes("blocks_out", blocks_in if blocks_out is None else blocks_out, counts[1]),
        tuple(actions),
    )
    for action in blocks.actions:
        _check_action(action, counts)
    handle = TagHandle(layer, stored_blocks(layer))
    setattr(layer, _ATTRIBUTE, blocks)
    return handle


def _sizes(argument: str, blocks: int | Sequence[int], channels: int) -> tuple[int, ...]:
    """Return the block sizes as a tuple that adds up to `channels`."""
    remedy = "Give one size that divides the channels, or one size per block in channel order."
    expected = f"positive block sizes that add up to the layer's {channels} channels"
    if isinstance(blocks, int):
        if blocks < 1 or channels % blocks:
            raise InvalidArgumentError(
                argument, received=f"blocks of {blocks}", expected=expected, remedy=remedy
            )
        return (blocks,) * (channels // blocks)
    sizes = tuple(int(size) for size in blocks)
    if any(size < 1 for size in sizes) or sum(sizes) != channels:
        received = f"{_describe(sizes)}, together {sum(sizes)} channels"
        raise InvalidArgumentError(argument, received=received, expected=expected, remedy=remedy)
    return sizes


def _check_action(action: Action, counts: tuple[int, int]) -> None:
    for name, permutation, channels in (
        ("permutation_in", action.permutation_in, counts[0]),
        ("permutation_out", action.permutation_out, counts[1]),
    ):
        if sorted(permutation) != list(range(channels)):
            raise InvalidArgumentError(
                "actions",
                received=f"a {name} of length {len(permutation)}",
                expected=f"a permutation of 0 … {channels - 1}, the layer's channels",
                remedy="Build the actions with `regular_actions`, or list where each channel goes.",
            )


def regular_actions(
    blocks_in: Sequence[int], blocks_out: Sequence[int], *, order: int, kernel_size: int = 1
) -> tuple[Action, ...]:
    """Return the generators of C_N's exact elements for a layer between regular and trivial fields.

    A turn by 360°/N shifts a block of N channels cyclically by one and leaves a block of one channel where
    it is. For 1×1 kernels every element is exact; for larger ones those that turn the grid by a
    multiple of 90°.

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
                received=_describe(tuple(sizes)),
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
