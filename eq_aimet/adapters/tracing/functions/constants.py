"""Constants of a traced graph: parameters, buffers, and values that depend only on them."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.tracing.graphs import TracedGraph

__all__ = ["drop_unused_constants", "fold_constants", "is_constant_node"]


def fold_constants(traced: TracedGraph, attributes: dict[str, Any]) -> None:
    """Replace computations on parameters and buffers alone by their values, in place.

    Examples are `torch.tanh(self.gate)` and a slice of a positional embedding. The value of a computation
    with a trainable parameter becomes a parameter.

    Args:
        traced: The graph, without in-place operations.
        attributes: The values of the graph's constants by name. The function adds the new constants.
    """
    for node in list(traced.graph.nodes):
        value = traced.examples.get(node)
        if node.op not in ("call_function", "call_method") or not isinstance(value, torch.Tensor):
            continue
        sources = node.all_input_nodes
        if not sources or not all(is_constant_node(source, attributes) for source in sources):
            continue
        if node.is_impure() or node.target is operator.setitem:
            continue
        is_trained = any(_is_trained(attributes[str(source.target)]) for source in sources)
        folded = value.detach().clone()
        count = sum(name.startswith("folded_constant_") for name in attributes)
        name = f"folded_constant_{count}"
        attributes[name] = torch.nn.Parameter(folded) if is_trained and folded.is_floating_point() else folded
        with traced.graph.inserting_before(node):
            # torch.fx looks for the attribute on the traced model, but this attribute is not on that model.
            constant = traced.graph.create_node("get_attr", name)
        traced.examples[constant] = folded
        traced.scopes[constant] = traced.scopes[node]
        node.replace_all_uses_with(constant)
        traced.graph.erase_node(node)


def is_constant_node(node: fx.Node, attributes: dict[str, Any]) -> bool:
    """Return whether `node` stands for a tensor that no operation of the graph changes."""
    if node.op != "get_attr" or not isinstance(attributes.get(str(node.target)), torch.Tensor):
        return False
    return not any(_writes_to(user, node) for user in node.users)


def drop_unused_constants(traced: TracedGraph, attributes: dict[str, Any]) -> None:
    """Remove in place the constants that modules have taken over."""
    for node in list(traced.graph.nodes):
        if node.op == "get_attr" and not node.users:
            traced.graph.erase_node(node)
    used = {str(node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    for name in set(attributes) - used:
        del attributes[name]


def _writes_to(user: fx.Node, node: fx.Node) -> bool:
    is_first = bool(user.args) and user.args[0] is node
    name = str(user.target)
    in_place = user.op == "call_method" and name.endswith("_") and not name.endswith("__")
    return is_first and (user.target is operator.setitem or in_place)


def _is_trained(value: torch.Tensor) -> bool:
    return isinstance(value, torch.nn.Parameter) and value.requires_grad
