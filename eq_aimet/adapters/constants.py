"""Parts of a traced graph that neither inputs nor parameters reach: they are computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

__all__ = ["fold_constants"]


def fold_constants(graph: fx.Graph, attributes: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Compute in place whatever depends on buffers and constants only; return the results by name.

    Operations on parameters stay, so that training still reaches the parameters.

    Args:
        graph: The traced graph, with nothing in place.
        attributes: The parameters, buffers and constants by the targets of the graph's nodes.
    """
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attributes[str(node.target)]
            if isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter):
                values[node] = value
        elif node.op in ("call_function", "call_method"):
            sources = node.all_input_nodes
            if sources and all(source in values for source in sources):
                values[node] = _compute(node, values)
    folded: dict[str, torch.Tensor] = {}
    for node, value in values.items():
        is_used = any(user not in values for user in node.users)
        if node.op != "get_attr" and is_used and isinstance(value, torch.Tensor):
            name = f"_constant_{len(folded)}"
            folded[name] = value.clone()
            with graph.inserting_after(node):
                node.replace_all_uses_with(graph.get_attr(name))
    for node in reversed(values):
        if not node.users:
            graph.erase_node(node)
    return folded


def _compute(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)
