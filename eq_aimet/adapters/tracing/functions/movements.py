"""Operations that move numbers, or make constants, and need no quantizer of their own."""

from __future__ import annotations

from torch import fx

__all__ = ["is_movement"]

# Each number of the result is a number of the input or a constant, so the input's quantizer is enough.
_MOVEMENTS = frozenset({
    "broadcast_to", "chunk", "clone", "contiguous", "cpu", "cuda", "detach", "double", "expand", "expand_as",
    "flatten", "flip", "fliplr", "flipud", "float", "gather", "getattr", "getitem", "half", "index_select",
    "masked_select", "moveaxis", "movedim", "narrow", "permute", "pixel_shuffle", "pixel_unshuffle", "ravel",
    "repeat", "repeat_interleave", "reshape", "reshape_as", "roll", "rot90", "select", "split", "squeeze",
    "swapaxes", "swapdims", "t", "take_along_dim", "tensor_split", "tile", "to", "transpose", "type",
    "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as", "amax", "amin", "max_pool2d",
    "channel_shuffle",
    "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "zeros_like", "ones_like", "full_like",
    "empty_like",
})  # fmt: skip


def is_movement(node: fx.Node) -> bool:
    """Return whether the operation of `node` only moves numbers, or makes constants."""
    return getattr(node.target, "__name__", str(node.target)).lstrip("_") in _MOVEMENTS
