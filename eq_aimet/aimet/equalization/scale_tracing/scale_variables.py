"""Scale variables: one number for each entry of a tensor, which says by which scale the entry may be divided.

The numbers of a tensor are an int64 tensor of the same shape, in which a dimension that all entries share has
stride 0 and so costs nothing. Numbers that have to be equal are joined; numbers whose scale has to stay 1 are
fixed, each with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Ids", "Threshold", "Variables", "compact", "joined_classes", "spread"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Threshold:
    """A parameter or buffer that is added to an activation, and so has to scale along with it.

    Attributes:
        module: The module that holds it. For a batch norm, the norm itself.
        name: Its name in the module.
        size: The shape of the part that is added.
        stride: The strides of the part.
        offset: Where the part starts, counted in entries from the start of the tensor.
    """

    module: torch.nn.Module
    name: str
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def tensor(self) -> torch.Tensor:
        """The part as a view, which can be changed in place."""
        tensor = getattr(self.module, self.name).detach()
        return tensor.as_strided(self.size, self.stride, tensor.storage_offset() + self.offset)


def compact(ids: torch.Tensor) -> torch.Tensor:
    """Return the numbers with each dimension of stride 0 cut to size 1; the result broadcasts as `ids` does.

    Example:
        >>> compact(torch.arange(3).reshape(1, 3, 1).expand(2, 3, 5)).shape
        torch.Size([1, 3, 1])
    """
    for dim, (size, stride) in enumerate(zip(ids.shape, ids.stride(), strict=True)):
        if stride == 0 and size > 1:
            ids = ids.narrow(dim, 0, 1)
    return ids


def spread(ids: torch.Tensor, shape: Iterable[int]) -> torch.Tensor:
    """Return the numbers, of size 1 in the dimensions that all entries share, in their full shape.

    A dimension along which all numbers are equal gets stride 0.
    """
    full = torch.Size(shape)
    for dim, size in enumerate(ids.shape):
        if size > 1 and ids.stride(dim) != 0:
            first = ids.narrow(dim, 0, 1)
            if bool((ids == first).all()):
                ids = first
    return compact(ids).expand(full)


def joined_classes(left: Iterable[Ids], right: Iterable[Ids], count: int) -> Ids:
    """Return the class of each number below `count`: joined numbers are of one class.

    Args:
        left: One side of each pair of joined numbers, in any number of arrays.
        right: The other side of each pair, in arrays of the same lengths.
        count: The number of numbers.

    Example:
        >>> joined_classes([np.array([0, 3])], [np.array([2, 2])], 4).tolist()
        [0, 1, 0, 0]
    """
    rows, columns = (np.concatenate([[], *side]).astype(int) for side in (left, right))
    ones = np.ones(len(rows), dtype=np.int8)
    edges = coo_array((ones, (rows, columns)), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


@dataclass
class Variables:
    """Scale variables, the pairs that must be equal, and the variables that must stay 1.

    Attributes:
        count: The number of variables.
        left: One side of each pair that has to be equal.
        right: The other side of each pair.
        fixed: The variables that stay 1, with the reason.
        thresholds: The tensors that scale along with an activation, with the variables of their entries.
    """

    count: int = 0
    left: list[Ids] = field(default_factory=list)
    right: list[Ids] = field(default_factory=list)
    fixed: list[tuple[Ids, str]] = field(default_factory=list)
    thresholds: list[tuple[Threshold, Ids]] = field(default_factory=list)

    def new(self, count: int) -> torch.Tensor:
        """Return new variables, of shape (count,)."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def join(self, first: torch.Tensor, second: torch.Tensor) -> None:
        """Make variables equal, one by one; the shapes broadcast."""
        first, second = torch.broadcast_tensors(compact(first), compact(second))
        different = first != second
        if bool(different.any()):
            self.left.append(first[different].numpy())
            self.right.append(second[different].numpy())

    def join_along(self, ids: torch.Tensor, dims: Iterable[int]) -> torch.Tensor:
        """Make variables equal along some dimensions; return one of each, with these dimensions of size 1."""
        firsts = ids
        for dim in dims:
            firsts = firsts.narrow(dim, 0, 1)
        self.join(firsts, ids)
        return firsts

    def join_blocks(self, ids: torch.Tensor, blocks: tuple[int, ...]) -> torch.Tensor:
        """Make the variables of each block equal; return one per block.

        Args:
            ids: One variable per channel, of shape (channels,).
            blocks: The sizes of the blocks in channel order.
        """
        sizes = torch.tensor(blocks)
        firsts = ids[torch.cumsum(sizes, 0) - sizes]
        self.join(ids, firsts.repeat_interleave(sizes))
        return firsts

    def scale_along(self, threshold: Threshold, ids: torch.Tensor) -> None:
        """Let a parameter or buffer scale along.

        Args:
            threshold: The part that is added to the activation.
            ids: The variables of its entries, in its shape.
        """
        self.thresholds.append((threshold, ids.contiguous().numpy()))

    def fix(self, ids: torch.Tensor, reason: str) -> None:
        """Make variables stay 1."""
        self.fixed.append((compact(ids).flatten().numpy(), reason))

    def solve(self) -> tuple[Ids, dict[int, str]]:
        """Return the class of each variable, numbered from 1, and the reasons of the classes that stay 1."""
        classes = joined_classes(self.left, self.right, self.count) + 1
        reasons: dict[int, str] = {}
        for ids, reason in self.fixed:
            for number in np.unique(classes[ids]):
                reasons.setdefault(int(number), reason)
        return classes, reasons
