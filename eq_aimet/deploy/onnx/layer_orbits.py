"""The orbits of a layer's weight, in the layout of the weight in an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.layers import is_transposed
from eq_aimet.symmetry.orbits import bias_orbits, weight_orbits

__all__ = ["LayerOrbits", "TiedLayer", "block_vectors", "layer_orbits", "untied_bias"]


@dataclass(frozen=True)
class TiedLayer:
    """A layer whose weights the exact elements tie.

    Attributes:
        name: The layer's dotted name.
        module: The layer.
        blocks: The layer's blocks, with actions.
    """

    name: str
    module: torch.nn.Module
    blocks: LayerBlocks


@dataclass(frozen=True)
class LayerOrbits:
    """The orbit of each weight of one layer.

    Attributes:
        name: The layer's dotted name.
        weight: The name of the layer's integer weight in the file.
        orbits: The orbit of each weight, an array of the weight's shape.
        blocks_out: The sizes of the blocks along the weight's first dimension.
        blocks_in: The sizes of the blocks along the weight's second dimension.
    """

    name: str
    weight: str
    orbits: np.ndarray
    blocks_out: tuple[int, ...]
    blocks_in: tuple[int, ...]


def layer_orbits(layer: TiedLayer) -> LayerOrbits:
    """Return the orbits of a layer's weight, with the blocks along the weight's dimensions."""
    first, second = layer.blocks.blocks_out, layer.blocks.blocks_in
    if is_transposed(layer.module):
        first, second = second, first
    orbits = weight_orbits(layer.module, layer.blocks).cpu().numpy()
    columns = orbits.shape[1]
    if sum(second) != columns:
        # All groups are alike: the blocks of one group, or the whole group if it is smaller than a block.
        uniform = len(set(second)) == 1 and columns % second[0] == 0
        second = (second[0],) * (columns // second[0]) if uniform else (columns,)
    return LayerOrbits(layer.name, f"{layer.name}.weight_q", orbits, first, second)


def block_vectors(layers: Sequence[TiedLayer]) -> list[tuple[str, int]]:
    """Return the names of the biases and scales with one number per channel, and the size of their blocks."""
    return [
        (f"{layer.name}.{vector}", layer.blocks.blocks_out[0])
        for layer in layers
        if len(set(layer.blocks.blocks_out)) == 1 and layer.blocks.blocks_out[0] > 1
        for vector in ("bias_q", "weight_scale", "bias_scale")
    ]


def untied_bias(graph: Graph, layers: Sequence[TiedLayer]) -> tuple[str, int] | None:
    """Return the first layer whose integer biases differ within an orbit, and the largest difference."""
    for layer in layers:
        bias = graph.constants.get(f"{layer.name}.bias_q")
        orbits = bias_orbits(layer.blocks).numpy()
        if bias is None or bias.shape != orbits.shape:
            continue
        first = np.unique(orbits, return_index=True)[1]
        apart = int(np.abs(bias.astype(np.int64) - bias[first][orbits].astype(np.int64)).max())
        if apart:
            return layer.name, apart
    return None
