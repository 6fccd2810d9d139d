"""A basis expansion built and expanded per block of the filter, not per basis element."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from e2cnn.kernels import EmptyBasisException
from e2cnn.nn import FieldType
from e2cnn.nn.modules.r2_conv.basisexpansion import BasisExpansion
from e2cnn.nn.modules.r2_conv.basisexpansion_blocks import BlocksBasisExpansion
from e2cnn.nn.modules.r2_conv.basisexpansion_singleblock import (
    SingleBlockBasisExpansion,
    block_basisexpansion,
)

__all__ = ["LazyBlocksBasisExpansion"]

Pair = tuple[str, str]


class LazyBlocksBasisExpansion(BlocksBasisExpansion):
    """e2cnn's `BlocksBasisExpansion`, with the names of the basis elements written on demand.

    When e2cnn builds a layer, it formats one string per weight, which takes most of the construction time.
    e2cnn reads these strings only in `get_element_info` and `get_basis_names`. The weights, their order, the
    buffers and the names of the buffers are the same as in e2cnn.

    This class computes a block of the filter as one matrix product, weights times basis. e2cnn computes an
    einsum, which takes three times as long, forward and backward, for these small matrices.

    Another difference is that each layer owns its sampled basis. e2cnn shares one basis among all layers of
    a process, so `model.double()` or `model.cuda()` also converts the layers of other models.

    Args:
        in_type: The field type of the input.
        out_type: The field type of the output.
        basis_generator: Returns the analytic kernel basis of an input and an output representation.
        points: The points at which the basis is sampled, (2, S).
        basis_filter: Selects the basis elements to keep.
        recompute: Whether to sample the basis again instead of taking it from e2cnn's cache.
        **options: The other arguments of `basis_generator`.
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        basis_generator: Callable[..., Any],
        points: np.ndarray,
        basis_filter: Callable[[dict], bool] | None = None,
        recompute: bool = False,
        **options: Any,
    ) -> None:
        # this class replaces the constructor of BlocksBasisExpansion
        BasisExpansion.__init__(self)
        self._in_type, self._out_type = in_type, out_type
        self._input_size, self._output_size = in_type.size, out_type.size
        self.points = points
        self.S = points.shape[1]
        blocks: dict[Pair, SingleBlockBasisExpansion] = {}
        for source in in_type._unique_representations:
            for target in out_type._unique_representations:
                pair = (source.name, target.name)
                try:
                    basis = basis_generator(source, target, **options)
                    blocks[pair] = _own(
                        block_basisexpansion(basis, points, basis_filter, recompute=recompute)
                    )
                except EmptyBasisException:
                    continue
                self.add_module(f"block_expansion_{pair}", blocks[pair])
        self._n_pairs = len(in_type._unique_representations) * len(out_type._unique_representations)
        self._representations_pairs = sorted(blocks)
        self._contiguous: dict[Pair, bool] = {}
        self._weights_ranges: dict[Pair, tuple[int, int]] = {}
        self._place_blocks(blocks)

    def _place_blocks(self, blocks: dict[Pair, SingleBlockBasisExpansion]) -> None:
        """Record, in place, which weights make the filter of which channels."""
        in_channels = _channels_by_name(self._in_type)
        out_channels = _channels_by_name(self._out_type)
        self._in_count = _count_by_name(self._in_type)
        self._out_count = _count_by_name(self._out_type)
        position = 0
        for pair in self._representations_pairs:
            inputs, outputs = in_channels[pair[0]], out_channels[pair[1]]
            self._contiguous[pair] = _is_contiguous(inputs) and _is_contiguous(outputs)
            if self._contiguous[pair]:
                setattr(self, f"in_indices_{pair}", _bounds(inputs))
                setattr(self, f"out_indices_{pair}", _bounds(outputs))
            else:
                rows, columns = torch.meshgrid(outputs, inputs, indexing="ij")
                self.register_buffer(f"in_indices_{pair}", columns.reshape(-1))
                self.register_buffer(f"out_indices_{pair}", rows.reshape(-1))
            count = self._in_count[pair[0]] * self._out_count[pair[1]] * blocks[pair].dimension()
            self._weights_ranges[pair] = (position, position + count)
            position += count
        self._dimension = position

    def dimension(self) -> int:
        """Return the number of weights."""
        return self._dimension

    def _expand_block(self, weights: torch.Tensor, pair: Pair) -> torch.Tensor:
        """Return one block of the filter, (output fields, size, input fields, size, pixels)."""
        basis = getattr(self, f"block_expansion_{pair}").sampled_basis  # [elements, out, in, pixels]
        coefficients = weights[slice(*self._weights_ranges[pair])].view(-1, len(basis))
        filters = coefficients @ basis.flatten(1)
        counts = self._out_count[pair[1]], self._in_count[pair[0]]
        return filters.view(*counts, *basis.shape[1:]).transpose(1, 2)

    def get_basis_names(self) -> list[str]:
        """Return the names of all basis elements, in the order of the weights."""
        return self._basis_to_ids

    @property
    def _basis_to_ids(self) -> list[str]:
        return [element["id"] for element in self.get_basis_info()]

    @property
    def _ids_to_basis(self) -> dict[str, int]:
        return {element["id"]: element["idx"] for element in self.get_basis_info()}


def _own(block: SingleBlockBasisExpansion) -> SingleBlockBasisExpansion:
    """Return a view of a cached block with a sampled basis of its own, as e2cnn would have sampled it."""
    own = copy.copy(block)
    own._buffers = dict(block._buffers)
    own.sampled_basis = block.sampled_basis.to(device="cpu", dtype=torch.get_default_dtype(), copy=True)
    return own


def _channels_by_name(field_type: FieldType) -> dict[str, torch.Tensor]:
    """Return the channels of each representation's fields, (count · size,) each."""
    channels: defaultdict[str, list[int]] = defaultdict(list)
    start = 0
    for representation in field_type.representations:
        channels[representation.name].extend(range(start, start + representation.size))
        start += representation.size
    return {name: torch.tensor(found) for name, found in channels.items()}


def _count_by_name(field_type: FieldType) -> dict[str, int]:
    names = [representation.name for representation in field_type.representations]
    return {name: names.count(name) for name in set(names)}


def _is_contiguous(channels: torch.Tensor) -> bool:
    return int(channels[-1]) - int(channels[0]) + 1 == len(channels)


def _bounds(channels: torch.Tensor) -> list[int]:
    """Return the first channel, the channel after the last, and the number of channels."""
    return [int(channels[0]), int(channels[-1]) + 1, len(channels)]
