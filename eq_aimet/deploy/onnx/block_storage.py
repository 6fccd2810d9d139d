"""Biases and scales stored by block: one number for all channels of a field."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eq_aimet.deploy.onnx.graph import Graph

__all__ = ["store_blocks"]

# The two added nodes cost time when the file is opened, so only long vectors are stored this way.
_LEAST_SAVING = 2000


def store_blocks(graph: Graph, vectors: Sequence[tuple[str, int]]) -> int:
    """Store one value per block for vectors that are constant on blocks; works in place.

    Added nodes repeat each value for all channels of its block.

    Args:
        graph: The graph with the vectors.
        vectors: The name of each vector and the size of its blocks.

    Returns:
        The number of bytes that this saves.
    """
    saved = 0
    for name, size in vectors:
        values = graph.constants.get(name)
        if values is None or values.ndim != 1 or len(values) % size:
            continue
        blocks = values.reshape(-1, size)
        saving = values.nbytes - values.nbytes // size
        if saving < _LEAST_SAVING or not np.array_equal(blocks, blocks[:, :1].repeat(size, 1)):
            continue
        graph.drop_constant(name)
        stored = graph.constant(np.ascontiguousarray(blocks[:, :1]))
        shape = graph.constant(np.array(blocks.shape, dtype=np.int64))
        repeated = graph.node("Expand", [stored, shape])  # [blocks, channels of a block]
        graph.node("Reshape", [repeated, graph.constant(np.array([-1], dtype=np.int64))], name)
        saved += saving
    return saved
