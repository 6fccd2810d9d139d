"""Rewriting a traced graph so that no operation works in place."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.tracing.refusals import shared_in_place

__all__ = ["TracedGraph", "changes_in_place", "in_place_to_plain"]


@dataclass(frozen=True)
class TracedGraph:
    """A graph, and the tracer's records of its nodes.

    Attributes:
        graph: The graph; it is changed in place.
        examples: Each node's result on the dummy input.
        scopes: The path of the module whose `forward` made the node.
        in_place: The calls of modules that worked in place in the source.
    """

    graph: fx.Graph
    examples: dict[fx.Node, Any]
    scopes: dict[fx.Node, str]
    in_place: set[fx.Node]


_IN_PLACE_OPERATORS: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def in_place_to_plain(traced: TracedGraph) -> None:
    """Replace each in-place operation of the graph by an out-of-place operation; works in place.

    Later uses of the input take the operation's result.

    Raises:
        ExportError: If a later operation uses a view of the changed tensor, because the view would no longer
            show the change.
    """
    order = {node: position for position, node in enumerate(traced.graph.nodes)}
    for node in list(traced.graph.nodes):
        plain = _out_of_place(node, node in traced.in_place)
        if plain is None:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for other in order:
            is_older_view = (
                other is not source and order[other] < order[node] and _share(traced, other, source)
            )
            if is_older_view and any(order[user] > order[node] for user in other.users):
                raise shared_in_place(f"`{node.target}`", traced.scopes.get(node, ""))
        plain(node)
        for user in list(source.users):
            if order[user] > order[node]:
                user.replace_input_with(source, node)


def changes_in_place(node: fx.Node) -> bool:
    """Return whether an operation that is not a module changes its first argument."""
    return node.op != "call_module" and _out_of_place(node, False) is not None


def _out_of_place(node: fx.Node, is_in_place_module: bool) -> Callable[[fx.Node], None] | None:
    """Return the change that makes `node` work out of place, or `None` if `node` needs no change."""
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    if node.op == "call_module":
        return (lambda node: None) if is_in_place_module else None
    if node.op == "call_function":
        operation = _IN_PLACE_OPERATORS.get(node.target)
        if operation is not None:
            return lambda node: setattr(node, "target", operation)
        if node.kwargs.get("inplace"):
            return lambda node: setattr(node, "kwargs", {**node.kwargs, "inplace": False})
    if node.op == "call_method":
        name = str(node.target)
        if name.endswith("_") and not name.endswith("__") and hasattr(torch.Tensor, name[:-1]):
            return lambda node: setattr(node, "target", name[:-1])
    return None


def _share(traced: TracedGraph, first: fx.Node, second: fx.Node) -> bool:
    tensors = [traced.examples.get(node) for node in (first, second)]
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return False
    pointers = [tensor.untyped_storage().data_ptr() for tensor in tensors]  # type: ignore[union-attr]
    return pointers[0] == pointers[1] != 0
