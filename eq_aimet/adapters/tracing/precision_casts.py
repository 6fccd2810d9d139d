"""Casts in `forward`: a cast without effect is removed; other casts follow the plain model's precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.tracing.refusals import low_precision

__all__ = ["check_precision", "follow_precision"]

_CASTS = frozenset(["float", "double", "to", "type", "type_as", "cpu", "cuda", "detach"])
_LOW = (torch.float16, torch.bfloat16)


def check_precision(node: fx.Node, examples: dict[fx.Node, Any]) -> None:
    """Refuse a node that computes in float16 or bfloat16.

    Raises:
        ExportError: If the node turns numbers of another type into float16 or bfloat16.
    """
    dtype = getattr(examples[node], "dtype", None)
    if dtype in _LOW and isinstance(examples[node], torch.Tensor):
        raise low_precision(dtype)


def follow_precision(
    graph: fx.Graph, examples: dict[fx.Node, Any], precision: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """Let the plain model convert to any precision, in place; return the attributes that the graph needs.

    A cast that changes nothing is removed. A cast of integers to the model's precision, and a tensor that
    `forward` makes in this precision, take the precision of a buffer, which `.double()` converts.

    Args:
        graph: The traced graph.
        examples: Each node's result on the dummy input.
        precision: The model's floating-point type, or `None` if the model has no such weights.
    """
    attributes: dict[str, torch.Tensor] = {}
    for node in list(graph.nodes):
        result = examples.get(node)
        if node.op not in ("call_function", "call_method") or not isinstance(result, torch.Tensor):
            continue
        sources = [
            source for source in node.all_input_nodes if isinstance(examples.get(source), torch.Tensor)
        ]
        is_cast = node.op == "call_method" and node.target in _CASTS
        if is_cast and _is_same_form(result, examples[sources[0]]):
            node.replace_all_uses_with(sources[0])
            graph.erase_node(node)
        elif result.dtype == precision and (is_cast or not sources):
            attributes["_precision"] = torch.zeros((), dtype=precision, device=result.device)
            with graph.inserting_after(node):
                reference = graph.create_node("get_attr", "_precision")
            with graph.inserting_after(reference):
                follower = graph.call_method("type_as", (node, reference))
            examples[reference], examples[follower] = attributes["_precision"], result
            node.replace_all_uses_with(follower, delete_user_cb=lambda user, own=follower: user is not own)
            if is_cast:
                follower.args = (sources[0], reference)
                graph.erase_node(node)
    return attributes


def _is_same_form(result: torch.Tensor, source: torch.Tensor) -> bool:
    return result.dtype == source.dtype and result.device == source.device and result.shape == source.shape
