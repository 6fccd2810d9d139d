"""Regions: where a positive scale can move from the layers that write some channels to those that read them.

AIMET's CLS sets are two or three layers in a row. A region is more general: several sources and several
sinks, with any modules between them that commute with a positive scale (ReLU, pooling, masks, residual sums,
group pooling, flattening …). Channels that have to share a scale are joined: those of a block, those that a
sum adds, those that group pooling compares. What is left over are independent scales.

Equalization over such regions is brevitas' idea; here blocks of channels take the place of channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eq_aimet.aimet.equalization.passages import Ids, Variables, pass_through
from eq_aimet.plain import Concat
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import channel_counts, is_layer

__all__ = ["Joint", "Joints", "find_joints"]

_FIXED = 0  # the number of the scale that stays 1
_OF_SHAPES = ("size", "NumToTensor")  # operations that read no values


@dataclass(frozen=True, eq=False)
class Joint:
    """One side of a layer: its output channels in a source, its input channels in a sink.

    Attributes:
        layer: A convolution or linear layer; for a threshold, a module with a bias per block.
        scales: The number of the scale of each channel; 0 stands for the scale that stays 1.
        reason: Why some of the channels can't be scaled, or an empty string.
    """

    layer: Any
    scales: Ids
    reason: str


@dataclass(frozen=True)
class Joints:
    """All places of a model that scales belong to: the layers' two sides, and biases between layers."""

    sources: tuple[Joint, ...] = ()
    sinks: tuple[Joint, ...] = ()
    thresholds: tuple[Joint, ...] = ()


def find_joints(
    graph: Any,
    outputs: Iterable[torch.nn.Module],
    held: Iterable[torch.nn.Module],
    untouchable: Iterable[torch.nn.Module],
) -> Joints:
    """Return all places of a model that scales belong to, with the scale that each channel takes.

    Args:
        graph: AIMET's `ConnectedGraph` of the model.
        outputs: Modules whose output the model returns.
        held: Layers whose output channels keep their scale, since they were scaled already.
        untouchable: Layers whose weights must not change at all, such as those that run twice.
    """
    search = _Search(set(outputs), set(held), set(untouchable))
    search.variables.shared = _shared_tensors(graph)
    for operation in graph.ordered_ops:
        search.visit(operation)
    classes, reasons = search.variables.solve()
    stopped = np.array(list(reasons))

    def joint(layer: Any, ids: Ids) -> Joint:
        own = classes[ids]
        fixed = np.isin(own, stopped)
        reason = reasons[int(own[fixed][0])] if fixed.any() else ""
        return Joint(layer, np.where(fixed, _FIXED, own), reason)

    return Joints(
        tuple(joint(*side) for side in search.sources),
        tuple(joint(*side) for side in search.sinks),
        tuple(joint(*side) for side in search.variables.thresholds),
    )


class _Search:
    """Passes scale variables along the graph, operation by operation."""

    def __init__(
        self, outputs: set[torch.nn.Module], held: set[torch.nn.Module], untouchable: set[torch.nn.Module]
    ) -> None:
        self.outputs = outputs
        self.held = held
        self.untouchable = untouchable
        self.variables = Variables()
        self.ids: dict[str, Ids] = {}
        self.barriers: dict[str, str] = {}
        self.sources: list[tuple[Any, Ids]] = []
        self.sinks: list[tuple[Any, Ids]] = []

    def visit(self, operation: Any) -> None:
        if operation.type in _OF_SHAPES:
            return
        inputs = [product for product in operation.inputs if not product.is_parm]
        known = [self._of(product) for product in inputs]
        module = operation.get_module()
        output = self._through(operation, module, inputs, known)
        if output is None or isinstance(output, str):
            reason = output or self._why_stopped(operation, inputs, known)
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

    def _through(
        self, operation: Any, module: Any, inputs: list[Any], known: list[Ids | None]
    ) -> Ids | str | None:
        """Return the variables of the operation's output; a reason or `None` where no scale passes."""
        if module is not None and module not in self.untouchable and is_layer(module):
            return self._layer(module, inputs)
        if isinstance(module, Concat):
            return self._concatenation(inputs, operation)
        return pass_through(self.variables, operation, known)

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

    def _why_stopped(self, operation: Any, inputs: list[Any], known: list[Ids | None]) -> str:
        """Return why no scale passes an operation: for its own sake, or since none reaches it."""
        unreached = [
            self._barrier(product)
            for product, ids in zip(inputs, known, strict=True)
            if ids is None and product.shape
        ]
        if not unreached:
            return f"{_describe(operation)} does not commute with a positive scale"
        if all(ids is None for ids in known):
            return unreached[0]
        return f"{_describe(operation)} joins it with what keeps its scale: {unreached[0]}"

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


def _shared_tensors(graph: Any) -> frozenset[int]:
    """Return the ids of the parameters and buffers that several operations use."""
    modules = [operation.get_module() for operation in graph.ordered_ops]
    uses = Counter(
        id(tensor)
        for module in modules
        if module is not None
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )
    return frozenset(tensor for tensor, count in uses.items() if count > 1)


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
