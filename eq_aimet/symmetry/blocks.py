"""Rotation blocks: the adjacent channels of a layer that form one field, and the group's actions on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.layers import channel_counts, describe_blocks, is_convolution

__all__ = ["LayerBlocks", "TagHandle", "is_blockwise_depthwise", "stored_blocks", "tag_blocks"]

_ATTRIBUTE = "eq_aimet_blocks"


@dataclass(frozen=True)
class LayerBlocks:
    """The rotation blocks of one layer, and the actions of the exact group elements on it.

    Attributes:
        blocks_in: Sizes of the blocks of the input channels, in channel order; they add up to the channels.
        blocks_out: Sizes of the blocks of the output channels, in the same form.
        actions: Generators of the elements that map weights onto weights.
        has_all_actions: Whether `actions` generate all exact elements of the layer. If it is True and
            `actions` is empty, only the identity is exact. If it is False, `actions` may lack some elements
            or all elements.
    """

    blocks_in: tuple[int, ...]
    blocks_out: tuple[int, ...]
    actions: tuple[Action, ...] = ()
    has_all_actions: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        return (
            f"LayerBlocks({describe_blocks(self.blocks_in)} -> {describe_blocks(self.blocks_out)}, "
            f"{len(self.actions)} action{'' if len(self.actions) == 1 else 's'})"
        )


@dataclass(frozen=True)
class TagHandle:
    """Undoes one call of `tag_blocks`: `remove()` restores the layer's former blocks."""

    layer: torch.nn.Module
    previous: LayerBlocks | None

    def remove(self) -> None:
        """Restore the layer's former blocks, in place."""
        if self.previous is None:
            self.layer.__dict__.pop(_ATTRIBUTE, None)
        else:
            setattr(self.layer, _ATTRIBUTE, self.previous)


def is_blockwise_depthwise(layer: torch.nn.Module, blocks: LayerBlocks | None) -> bool:
    """Return whether the groups of a convolution are its blocks, so that it mixes no two blocks.

    For a channel-wise depthwise convolution (`groups == in_channels == out_channels`) the answer is False.
    """
    if blocks is None or not is_convolution(layer):
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
    actions: Sequence[Action] | None = None,
) -> TagHandle:
    """Put rotation blocks on `layer`, in place, for a model that does not come from e2cnn.

    Args:
        layer: A convolution, linear layer or batch norm.
        blocks_in: Sizes of the blocks of the input channels in channel order, or one size for all.
        blocks_out: Sizes of the blocks of the output channels; equal to `blocks_in` if left out.
        actions: Generators of the exact group elements' actions on the layer, see `regular_actions`. An empty
            sequence says that only the identity is exact. If left out, the actions are unknown.

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
        () if actions is None else tuple(actions),
        has_all_actions=actions is not None,
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
        received = f"{describe_blocks(sizes)}, together {sum(sizes)} channels"
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
