"""Layers and CLS sets whose scaling would make the network compute something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from aimet_torch.cross_layer_equalization import cls_supported_activations
from aimet_torch.utils import in_eval_mode

from eq_aimet.aimet.equalization.block_scaling import ClsSet
from eq_aimet.symmetry import is_layer

__all__ = ["output_modules", "unsafe_cls_sets", "unsafe_layers"]


def unsafe_layers(model: torch.nn.Module, search: Any) -> dict[torch.nn.Module, str]:
    """Return the layers that scaling would change for several places at once, each with the reason.

    Args:
        model: The model that the layers belong to.
        search: AIMET's `GraphSearchUtils` of the model.
    """
    runs = Counter(operation.get_module() for operation in search._connected_graph.ordered_ops)
    runs |= Counter(layer for _, layer in search._ordered_module_list)
    holders = Counter(
        id(parameter) for module in model.modules() for parameter in module._parameters.values()
    )
    reasons: dict[torch.nn.Module, str] = {}
    for name, layer in model.named_modules():
        if not is_layer(layer):
            continue
        if runs[layer] > 1:
            reasons[layer] = f"`{name}` runs {runs[layer]} times in one forward pass"
        elif any(holders[id(parameter)] > 1 for parameter in layer.parameters()):
            reasons[layer] = f"`{name}` shares its weight with another layer"
    return reasons


def unsafe_cls_sets(
    model: torch.nn.Module,
    search: Any,
    cls_sets: list[ClsSet],
    outputs: set[torch.nn.Module],
    shared: dict[torch.nn.Module, str],
) -> list[tuple[ClsSet, str]]:
    """Return the CLS sets whose scaling would change what the model computes, each with the reason.

    A layer that runs twice or whose weight another layer holds too is scaled for all its places at once, and
    an output of the model is scaled where nothing scales it back. AIMET looks for neither.

    Args:
        model: The model that the sets belong to.
        search: AIMET's `GraphSearchUtils` of the model.
        cls_sets: The sets that AIMET found.
        outputs: The modules whose output the model returns.
        shared: What `unsafe_layers` returns.
    """
    unsafe = []
    for cls_set in cls_sets:
        reason = next((shared[layer] for layer in cls_set if layer in shared), "")
        for layer in cls_set[:-1]:
            if any(module in outputs for module in _until_next_layer(search._connected_graph, layer)):
                reason = f"what `{_name(model, layer)}` computes is an output of the model, too"
        if reason:
            unsafe.append((cls_set, reason))
    return unsafe


def _name(model: torch.nn.Module, layer: torch.nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


def output_modules(model: torch.nn.Module, dummy_input: Any) -> set[torch.nn.Module]:
    """Return the modules whose output the model returns, as it is or as a view.

    AIMET's graph does not always know the outputs of the model, so the model runs once.

    Args:
        model: The model.
        dummy_input: A tensor, or a tuple of tensors, on the model's device.
    """
    written: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def note(module: torch.nn.Module, _: Any, output: Any) -> None:
        written.extend((module, tensor) for tensor in _tensors(output))

    # Modules with submodules only pass on what those have written.
    leaves = [module for module in model.modules() if next(module.children(), None) is None]
    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        with in_eval_mode(model), torch.no_grad():
            inputs = dummy_input if isinstance(dummy_input, list | tuple) else [dummy_input]
            returned = model(**dummy_input) if isinstance(dummy_input, dict) else model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    storages = {tensor.untyped_storage().data_ptr() for tensor in _tensors(returned)}
    return {module for module, tensor in written if tensor.untyped_storage().data_ptr() in storages}


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _until_next_layer(graph: Any, layer: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the layer and the activations after it."""
    operation = next(operation for operation in graph.ordered_ops if operation.get_module() is layer)
    yield layer
    while len(operation.output_ops) == 1:
        operation = operation.output_ops[0]
        if not isinstance(operation.get_module(), cls_supported_activations):
            return
        yield operation.get_module()
