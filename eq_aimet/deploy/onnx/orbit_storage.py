"""Stores weights by orbit: one representative per orbit; standard operators rebuild the weight at load.

A weight between F blocks of N channels and F' blocks of N' channels is a grid of F×F' *cells* of shape
(N, N', k, k). The exact group elements map each cell onto itself, and all cells in the same way. So one small
index, the *pattern*, names the representative at each place of a cell. `Gather` with the pattern rebuilds the
cells; `Transpose` and `Reshape` put them in place. All inputs of these operators are constants, so the
runtime runs them once, when it opens the file. Its quantized kernels then find an ordinary weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.onnx.layer_orbits import LayerOrbits

__all__ = ["CompactCells", "StoredWeight", "compact_cells", "store_orbits"]

# Three nodes and their names cost about this size; if orbits save less, the whole weight is stored.
_LEAST_SAVING = 512


@dataclass(frozen=True)
class StoredWeight:
    """The storage of one layer's weight.

    Attributes:
        name: The layer's dotted name.
        bytes_plain: The size of the whole weight.
        bytes_stored: The size of the representatives in the file, without the pattern that layers share.
        reason: The reason if the whole weight is stored; empty if representatives are stored.
    """

    name: str
    bytes_plain: int
    bytes_stored: int
    reason: str = ""


@dataclass(frozen=True)
class CompactCells:
    """A grid of cells, stored by its representatives.

    Attributes:
        representatives: The representatives, of shape (F, representatives of a cell, F').
        pattern: The representative at each place of a cell, of shape (N, N', k·k).
    """

    representatives: np.ndarray
    pattern: np.ndarray


def compact_cells(values: np.ndarray, orbits: np.ndarray, size_out: int, size_in: int) -> CompactCells | None:
    """Return the representatives of a weight between blocks of one size, or `None` if the cells differ.

    Orbits whose values are equal in every cell share a representative.

    Args:
        values: The weight, of shape (out, in, …).
        orbits: The orbit of each weight; within an orbit all values are equal.
        size_out: N, the size of the blocks of the first dimension.
        size_in: N', the size of the blocks of the second dimension.

    Example:
        >>> values = np.array([[1, 2, 5, 6], [2, 1, 6, 5]])
        >>> compact = compact_cells(values, values, 2, 2)
        >>> compact.representatives.tolist(), compact.pattern[..., 0].tolist()
        ([[[1, 5], [2, 6]]], [[0, 1], [1, 0]])
    """
    labels = _cells(orbits, size_out, size_in)  # [cells, places]
    _, first, inverse = np.unique(labels[0], return_index=True, return_inverse=True)
    pattern = first[
        inverse.reshape(-1)
    ]  # the first place of the same orbit, for each place of the first cell
    if not np.array_equal(labels, labels[:, pattern]):
        return None
    cells = _cells(values, size_out, size_in)[:, pattern]  # [cells, places], a representative at each
    columns, first, pattern = np.unique(cells, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(first)  # number the representatives in the order of their first place
    rank = np.argsort(order)
    blocks_out, blocks_in = values.shape[0] // size_out, values.shape[1] // size_in
    representatives = columns[:, order].reshape(blocks_out, blocks_in, -1).transpose(0, 2, 1)
    return CompactCells(
        np.ascontiguousarray(representatives),
        rank[pattern.reshape(-1)].reshape(size_out, size_in, -1).astype(np.int32),
    )


def _cells(values: np.ndarray, size_out: int, size_in: int) -> np.ndarray:
    rows, columns = values.shape[:2]
    split = values.reshape(rows // size_out, size_out, columns // size_in, size_in, -1)
    split = split.transpose(0, 2, 1, 3, 4)  # [blocks out, blocks in, size out, size in, grid]
    cells: np.ndarray = split.reshape(split.shape[0] * split.shape[1], -1)
    return cells


def store_orbits(graph: Graph, layers: Sequence[LayerOrbits]) -> tuple[StoredWeight, ...]:
    """Replace the weights of `layers` by representatives and the nodes that rebuild them; work in place.

    Returns:
        The storage of each weight, in the order of `layers`.
    """
    return tuple(_store(graph, layer) for layer in layers)


def _store(graph: Graph, layer: LayerOrbits) -> StoredWeight:
    values = graph.constants.get(layer.weight)
    if values is None:
        return StoredWeight(layer.name, 0, 0, "its weight is not in the file under its name")
    if values.shape != layer.orbits.shape:
        return StoredWeight(layer.name, values.nbytes, values.nbytes, "the exporter rearranged its weight")
    tiles = _tiles(values, layer)
    if tiles is None:
        return StoredWeight(layer.name, values.nbytes, values.nbytes, "its group mixes blocks")
    stored = sum(tile.representatives.nbytes for row in tiles for tile in row)
    if values.nbytes - stored < _LEAST_SAVING:
        return StoredWeight(layer.name, values.nbytes, values.nbytes, "too small to gain by it")
    assert np.array_equal(_rebuilt(tiles, values.shape), values)
    graph.drop_constant(layer.weight)
    rows = [_join(graph, [_rebuild(graph, tile) for tile in row], axis=1) for row in tiles]
    joined = _join(graph, rows, axis=0)
    shape = graph.constant(np.array(values.shape, dtype=np.int64))
    graph.node("Reshape", [joined, shape], layer.weight)
    return StoredWeight(layer.name, values.nbytes, stored)


def _tiles(values: np.ndarray, layer: LayerOrbits) -> list[list[CompactCells]] | None:
    """Return the compact form of each rectangle of the weight whose blocks have one size."""
    tiles: list[list[CompactCells]] = []
    top = 0
    for size_out, rows in _runs(layer.blocks_out):
        tiles.append([])
        left = 0
        for size_in, columns in _runs(layer.blocks_in):
            part = (slice(top, top + rows), slice(left, left + columns))
            tile = compact_cells(values[part], layer.orbits[part], size_out, size_in)
            if tile is None:
                return None
            tiles[-1].append(tile)
            left += columns
        top += rows
    return tiles


def _runs(blocks: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the block size and the number of channels of each run of equal blocks."""
    return [(size, size * len(list(run))) for size, run in groupby(blocks)]


def _rebuild(graph: Graph, tile: CompactCells) -> str:
    """Add the nodes that rebuild a rectangle and return the name of its value, (rows, columns, k·k)."""
    blocks_out, _, blocks_in = tile.representatives.shape
    size_out, size_in, places = tile.pattern.shape
    stored = graph.constant(tile.representatives)
    # [F, N, N', k·k, F'] : loading is fast because Gather copies contiguous runs of F'
    value = graph.node("Gather", [stored, graph.constant(tile.pattern)], axis=1)
    if blocks_in > 1:
        value = graph.node("Transpose", [value], perm=[0, 1, 4, 2, 3])
    shape = np.array([blocks_out * size_out, blocks_in * size_in, places], dtype=np.int64)
    return graph.node("Reshape", [value, graph.constant(shape)])


def _join(graph: Graph, values: list[str], axis: int) -> str:
    return values[0] if len(values) == 1 else graph.node("Concat", values, axis=axis)


def _rebuilt(tiles: list[list[CompactCells]], shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight that the added nodes compute."""
    rows = []
    for row in tiles:
        parts = []
        for tile in row:
            cells = tile.representatives[:, tile.pattern].transpose(0, 1, 4, 2, 3)
            size_out, size_in, places = tile.pattern.shape
            parts.append(cells.reshape(cells.shape[0] * size_out, cells.shape[2] * size_in, places))
        rows.append(np.concatenate(parts, 1))
    return np.concatenate(rows, 0).reshape(shape)
