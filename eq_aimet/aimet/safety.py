"""CLS sets that AIMET would scale although the network computes something else afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from aimet_torch.cross_layer_equalization import cls_supported_activations

from eq_aimet.aimet.block_scaling import ClsSet

__all__ = ["unsafe_cls_sets"]


def unsafe_cls_sets(model: torch.nn.Module, search: Any, cls_sets: list[ClsSet]) -> list[tuple[ClsSet, str]]:
    """Return the CLS sets whose scaling would change what the model computes, each with the reason.

    A layer that runs twice or whose weight another layer holds too is scaled for all its places at once, and
    an output of the model is scaled where nothing scales it back. AIMET looks for neither.

    Args:
        model: The model that the sets belong to.
        search: AIMET's `GraphSearchUtils` of the model.
        cls_sets: The sets that AIMET found.
    """
    runs = Counter(layer for _, layer in search._ordered_module_list)
    holders = Counter(
        id(parameter) for module in model.modules() for parameter in module._parameters.values()
    )
    outputs = _output_modules(search._connected_graph)
    unsafe = []
    for cls_set in cls_sets:
        reason = ""
        for layer in cls_set:
            if runs[layer] > 1:
                reason = f"`{_name(model, layer)}` runs {runs[layer]} times in one forward pass"
            elif any(holders[id(parameter)] > 1 for parameter in layer.parameters()):
                reason = f"`{_name(model, layer)}` shares its weight with another layer"
        for layer in cls_set[:-1]:
            if any(module in outputs for module in _until_next_layer(search._connected_graph, layer)):
                reason = f"what `{_name(model, layer)}` computes is an output of the model, too"
        if reason:
            unsafe.append((cls_set, reason))
    return unsafe


def _name(model: torch.nn.Module, layer: torch.nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


def _output_modules(graph: Any) -> set[torch.nn.Module]:
    """Return the modules that compute the model's outputs, as far as AIMET's graph tells."""
    modules, pending = set(), [graph.output_structure]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif part is not None and part.op.get_module() is not None:
            modules.add(part.op.get_module())
    return modules


def _until_next_layer(graph: Any, layer: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the layer and the activations after it."""
    operation = next(operation for operation in graph.ordered_ops if operation.get_module() is layer)
    yield layer
    while len(operation.output_ops) == 1:
        operation = operation.output_ops[0]
        if not isinstance(operation.get_module(), cls_supported_activations):
            return
        yield operation.get_module()
