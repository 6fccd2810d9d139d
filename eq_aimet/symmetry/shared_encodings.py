"""The encodings of a weight that must be equal, so that weights with the same label are quantized alike."""

from __future__ import annotations

import torch

from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.layers import is_transposed

__all__ = ["block_labels", "covers", "encoding_groups", "shared_range"]


def block_labels(layer: torch.nn.Module, shape: tuple[int, ...], blocks: LayerBlocks) -> torch.Tensor:
    """Return the number of the output block to which each weight or bias of a layer belongs.

    Args:
        layer: A convolution or linear layer.
        shape: The shape of its weight, or of its bias.
        blocks: The layer's blocks.
    """
    sizes = torch.tensor(blocks.blocks_out)
    numbers = torch.repeat_interleave(torch.arange(len(sizes)), sizes)  # [out]
    if len(shape) == 1 or not is_transposed(layer):
        labels = numbers.reshape(-1, *[1] * (len(shape) - 1))
    else:
        groups = int(getattr(layer, "groups", 1))
        by_group = numbers.reshape(groups, 1, shape[1])  # [groups, 1, out/groups]
        rows = by_group.expand(-1, shape[0] // groups, -1).reshape(shape[0], shape[1])  # [in, out/groups]
        labels = rows.reshape(*rows.shape, *[1] * (len(shape) - 2))
    return labels.expand(shape)


def covers(encodings: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether encodings of one shape divide a parameter of another into equal parts.

    Example:
        >>> covers((8, 1, 1, 1), (8, 4, 3, 3)), covers((8, 2, 1, 1), (8, 4, 3, 3)), covers((3,), (8,))
        (True, True, False)
    """
    padded = _padded(encodings, shape)
    return len(padded) == len(shape) and all(
        size % part == 0 for part, size in zip(padded, shape, strict=True)
    )


def encoding_groups(encodings: tuple[int, ...], labels: torch.Tensor) -> torch.Tensor:
    """Return the group of each encoding, an int64 tensor of the shape `encodings`.

    Encodings of one group must be equal. Two encodings are in one group if they quantize weights of the same
    label, or if a chain of such encodings connects them.

    Args:
        encodings: The shape of a quantizer, which divides the weight into equal parts: `()` for one encoding
            of the whole weight, `(out, 1, 1, 1)` for one of each row, `(out, 4, 1, 1)` for four of each row.
        labels: The label of each weight, of the weight's shape, for example its orbit.

    Returns:
        The group of each encoding, numbered 0, 1, …

    Example:
        >>> labels = torch.tensor([[0, 1], [1, 0], [2, 3]])
        >>> encoding_groups((3, 1), labels).flatten().tolist()
        [0, 0, 1]
    """
    places = torch.arange(torch.Size(encodings).numel()).reshape(_padded(encodings, tuple(labels.shape)))
    for axis, (part, size) in enumerate(zip(places.shape, labels.shape, strict=True)):
        places = places.repeat_interleave(size // part, axis)
    flat, places = labels.flatten(), places.flatten()  # [weights]
    groups = torch.arange(torch.Size(encodings).numel())
    while True:
        # The smallest number among the weights of a label goes to all encodings of these weights.
        smallest = groups.new_zeros(int(flat.max()) + 1)
        smallest = smallest.scatter_reduce(0, flat, groups[places], "amin", include_self=False)
        joined = groups.scatter_reduce(0, places, smallest[flat], "amin")
        if torch.equal(joined, groups):
            numbers: torch.Tensor = torch.unique(groups, return_inverse=True)[1]
            return numbers.reshape(encodings)
        groups = joined


def shared_range(
    minimum: torch.Tensor, maximum: torch.Tensor, groups: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ends of the ranges with the smallest minimum and the largest maximum of each group.

    Example:
        >>> shared_range(torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 2.0]), torch.tensor([0, 0]))
        (tensor([-2., -2.]), tensor([3., 3.]))
    """
    flat = groups.flatten().to(minimum.device)
    empty = minimum.new_zeros(int(flat.max()) + 1)
    low = empty.scatter_reduce(0, flat, minimum.flatten(), "amin", include_self=False)
    high = empty.scatter_reduce(0, flat, maximum.flatten(), "amax", include_self=False)
    return low[flat].reshape(minimum.shape), high[flat].reshape(maximum.shape)


def _padded(encodings: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    # AIMET leaves out leading dimensions of one: a shape (out, 1) stands for (…, out, 1).
    return (1,) * (len(shape) - len(encodings)) + encodings
