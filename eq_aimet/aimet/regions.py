"""Regions: where a positive scale can move from the layers that write some channels to those that read them.

AIMET's CLS sets are two or three layers in a row. A region is more general: several sources and several
sinks, with any modules between them that commute with a positive scale (ReLU, pooling, masks, residual sums,
group pooling, flattening …). Channels that have to share a scale are joined: those of a block, those that a
sum adds, those that group pooling compares. What is left over are independent scales.

Equalization over such regions is brevitas' idea; here blocks of channels take the place of channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import Add, Concat, GroupMaxPool, Mask, channel_counts, is_layer

__all__ = ["Joint", "find_joints"]

Ids = NDArray[np.int64]

_FIXED = 0  # the scale variable that stays 1

# A positive scale of a channel passes through these unchanged.
_COMMUTING = (
    torch.nn.ReLU,
    torch.nn.LeakyReLU,
    torch.nn.PReLU,
    torch.nn.Identity,
    torch.nn.Dropout,
    torch.nn.Dropout2d,
    torch.nn.MaxPool2d,
    torch.nn.AvgPool2d,
    torch.nn.AdaptiveAvgPool2d,
    torch.nn.AdaptiveMaxPool2d,
    torch.nn.Upsample,
    torch.nn.ZeroPad2d,
    Mask,
)


@dataclass(frozen=True, eq=False)
class Joint:
    """One side of a layer: its output channels in a source, its input channels in a sink.

    Attributes:
        layer: A convolution or linear layer.
        scales: The number of the scale of each channel; 0 stands for the scale that stays 1.
        reason: Why some of the channels can't be scaled, or an empty string.
    """

    layer: Any
    scales: Ids
    reason: str


@dataclass
class _Variables:
    """Scale variables, which of them have to be equal, and which have to stay 1."""

    count: int = 0
    left: list[Ids] = field(default_factory=list)
    right: list[Ids] = field(default_factory=list)
    fixed: list[tuple[Ids, str]] = field(default_factory=list)

    def new(self, channels: int) -> Ids:
        self.count += channels
        return np.arange(self.count - channels, self.count)

    def join(self, first: Ids, second: Ids) -> None:
        self.left.append(first)
        self.right.append(second)

    def join_blocks(self, ids: Ids, blocks: tuple[int, ...]) -> None:
        self.join(ids, np.repeat(ids[np.cumsum((0, *blocks[:-1]))], blocks))

    def fix(self, ids: Ids, reason: str) -> None:
        self.fixed.append((ids, reason))

    def solve(self) -> tuple[Ids, dict[int, str]]:
        """Return the class of each variable, numbered from 1, and the reasons of the classes that stay 1."""
        rows, columns = (np.concatenate([[], *side]).astype(int) for side in (self.left, self.right))
        ones = np.ones(len(rows), dtype=np.int8)
        edges = coo_array((ones, (rows, columns)), shape=(self.count, self.count))
        classes = connected_components(edges, directed=False)[1].astype(np.int64) + 1
        reasons: dict[int, str] = {}
        for ids, reason in self.fixed:
            for number in np.unique(classes[ids]):
                reasons.setdefault(int(number), reason)
        return classes, reasons


def find_joints(
    graph: Any,
    outputs: Iterable[torch.nn.Module],
    held: Iterable[torch.nn.Module],
    untouchable: Iterable[torch.nn.Module],
) -> tuple[list[Joint], list[Joint]]:
    """Return all sources and sinks of a model, with the scale that each of their channels takes.

    Args:
        graph: AIMET's `ConnectedGraph` of the model.
        outputs: Modules whose output the model returns.
        held: Layers whose output channels keep their scale, since they were scaled already.
        untouchable: Layers whose weights must not change at all, such as those that run twice.
    """
    search = _Search(set(outputs), set(held), set(untouchable))
    for operation in graph.ordered_ops:
        search.visit(operation)
    classes, reasons = search.variables.solve()

    def joint(layer: Any, ids: Ids) -> Joint:
        own = classes[ids]
        reason = next((reasons[number] for number in own.tolist() if number in reasons), "")
        return Joint(layer, np.where(np.isin(own, list(reasons)), _FIXED, own), reason)

    return [joint(*side) for side in search.sources], [joint(*side) for side in search.sinks]


class _Search:
    """Passes scale variables along the graph, operation by operation."""

    def __init__(
        self, outputs: set[torch.nn.Module], held: set[torch.nn.Module], untouchable: set[torch.nn.Module]
    ) -> None:
        self.outputs = outputs
        self.held = held
        self.untouchable = untouchable
        self.variables = _Variables()
        self.ids: dict[str, Ids] = {}
        self.barriers: dict[str, str] = {}
        self.sources: list[tuple[Any, Ids]] = []
        self.sinks: list[tuple[Any, Ids]] = []

    def visit(self, operation: Any) -> None:
        inputs = [product for product in operation.inputs if not product.is_parm]
        known = [self._of(product) for product in inputs]
        module = operation.get_module()
        output = self._through(operation, module, inputs, known)
        if output is None:
            reason = f"{_describe(operation)} does not commute with a positive scale"
            for ids in known:
                if ids is not None:
                    self.variables.fix(ids, reason)
            self.barriers |= {product.name: reason for product in operation.outputs}
            return
        if module in self.outputs or not operation.outputs:
            self.variables.fix(output, "it is an output of the model")
        for product in operation.outputs:
            self.ids[product.name] = output

    def _of(self, product: Any) -> Ids | None:
        return self.ids.get(_before_split(product).name)

    def _through(self, operation: Any, module: Any, inputs: list[Any], known: list[Ids | None]) -> Ids | None:
        """Return the variables of the operation's output, or `None` where no scale passes."""
        if module is not None and module not in self.untouchable and is_layer(module):
            return self._layer(module, inputs)
        if isinstance(module, Concat):
            return self._concatenation(inputs, operation)
        present = [ids for ids in known if ids is not None]
        if len(present) != len(known) or not present:
            # A constant, or something of unknown channels: only shapes may be constant.
            shape_only = operation.type.lower() in ("flatten", "reshape") and len(present) == 1
            if not shape_only or known[0] is None:
                return None
        first = present[0]
        if isinstance(module, _COMMUTING):
            return first
        if isinstance(module, Add) or operation.type == "Add":
            return self._sum(present)
        if isinstance(module, GroupMaxPool):
            size = module.blocks
            blocks = (size,) * (len(first) // size) if isinstance(size, int) else size
            self.variables.join_blocks(first, blocks)
            return first[np.cumsum((0, *blocks[:-1]))]
        if isinstance(module, torch.nn.Flatten) or operation.type.lower() == "flatten":
            return _flattened(first, inputs[0], operation)
        return None

    def _layer(self, layer: Any, products: list[Any]) -> Ids:
        counts = channel_counts(layer)
        assert counts is not None
        blocks = layer_blocks(layer)
        written = self._of(products[0])
        if written is not None and _channels_are(counts[0], products[0], layer):
            inputs = written
        else:
            inputs = self.variables.new(counts[0])
            self.variables.fix(inputs, self._barrier(products[0]))
            if written is not None:
                self.variables.fix(written, f"`{type(layer).__name__}` reads it along another dimension")
        if blocks is not None:
            self.variables.join_blocks(inputs, blocks.blocks_in)
        self.sinks.append((layer, inputs))
        outputs = self.variables.new(counts[1])
        if blocks is not None:
            self.variables.join_blocks(outputs, blocks.blocks_out)
        if layer in self.held:
            self.variables.fix(outputs, "it was scaled as part of a CLS set")
        self.sources.append((layer, outputs))
        return outputs

    def _barrier(self, product: Any) -> str:
        product = _before_split(product)
        if product.is_model_input:
            return "it is the model's input"
        return self.barriers.get(product.name, "it is of unknown channels")

    def _concatenation(self, products: list[Any], operation: Any) -> Ids | None:
        parts = []
        for product in products:
            part = self._of(product)
            if part is None:
                if product.shape is None:
                    return None
                part = self.variables.new(product.shape[1])
                self.variables.fix(part, self._barrier(product))
            parts.append(part)
        channels = sum(map(len, parts))
        return np.concatenate(parts) if all(o.shape[1] == channels for o in operation.outputs) else None

    def _sum(self, terms: list[Ids]) -> Ids | None:
        if len({len(ids) for ids in terms}) != 1:  # a broadcast over channels
            return None
        for ids in terms[1:]:
            self.variables.join(terms[0], ids)
        return terms[0]


def _describe(operation: Any) -> str:
    module = operation.get_module()
    if module is None:
        return f"the operation {operation.type!r}"
    return f"{type(module).__name__} `{operation.dotted_name.partition('.')[2]}`"


def _before_split(product: Any) -> Any:
    """Return what was written before AIMET's own split, which marks that several operations read it."""
    producer = product.producer
    return producer.inputs[0] if producer is not None and producer.type == "CG_Split" else product


def _channels_are(channels: int, product: Any, layer: Any) -> bool:
    """Return whether the layer's input channels are dimension 1 of the product."""
    shape = product.shape
    if shape is None or len(shape) < 2 or shape[1] != channels:
        return False
    return len(shape) == 2 or not isinstance(layer, torch.nn.Linear)


def _flattened(ids: Ids, product: Any, operation: Any) -> Ids | None:
    """Return the variables after flattening (batch, channels, …) to (batch, channels · pixels)."""
    shapes = [output.shape for output in operation.outputs] or [None]
    before = product.shape
    if before is None or shapes[0] is None or len(shapes[0]) != 2 or len(before) < 2 or before[1] != len(ids):
        return None
    pixels, rest = divmod(int(shapes[0][1]), len(ids))
    return None if rest else np.repeat(ids, pixels)
