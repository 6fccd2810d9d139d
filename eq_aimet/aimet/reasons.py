"""Why a convolution is in no CLS set, read off AIMET's connected graph."""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.cross_layer_equalization import cls_supported_activations

from eq_aimet.aimet.block_scaling import is_depthwise
from eq_aimet.aimet.recording import Recorder
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import is_convolution

__all__ = ["reasons_left_out"]

# Only these do not commute with a positive scale; AIMET's search ends at other modules, too.
_SCALE_DEPENDENT = (
    torch.nn.ReLU6,
    torch.nn.Sigmoid,
    torch.nn.Tanh,
    torch.nn.SiLU,
    torch.nn.GELU,
    torch.nn.ELU,
    torch.nn.Hardswish,
    torch.nn.Hardsigmoid,
    torch.nn.Softmax,
    torch.nn.Softplus,
    torch.nn.Mish,
)


def reasons_left_out(recorder: Recorder, names: dict[torch.nn.Module, str]) -> dict[torch.nn.Module, str]:
    """Return the reason for each convolution of the model that is in no scaled CLS set.

    Args:
        recorder: What the hooks saw.
        names: The dotted name of each module.
    """
    equalized = {layer for scaled in recorder.scaled for layer in scaled.layers}
    dropped = {layer: reason for cls_set, reason in recorder.dropped for layer in cls_set}
    operations: dict[torch.nn.Module, Any] = {}
    for operation in recorder.search._connected_graph.ordered_ops:
        operations.setdefault(operation.get_module(), operation)
    reasons: dict[torch.nn.Module, str] = {}
    for layer in names:
        if not is_convolution(layer) or layer in equalized:
            continue
        if layer in dropped:
            reasons[layer] = f"its CLS set was dropped: {dropped[layer]}"
        elif layer not in operations:
            reasons[layer] = "it is not reached from the input"
        else:
            reasons[layer] = _why(operations[layer], layer, names)
    return reasons


def _why(operation: Any, layer: Any, names: dict[torch.nn.Module, str]) -> str:
    grouped = _unsupported(layer)
    if grouped:
        return grouped
    return f"{_end_of_search(operation, layer, names)}; {_start_of_search(operation, layer, names)}"


def _unsupported(layer: Any) -> str:
    """Return why AIMET's pairing has no use for the layer, or an empty string."""
    if layer.groups == 1 or is_depthwise(layer):
        return ""
    if layer_blocks(layer) is None:
        return f"groups={layer.groups} of {layer.in_channels} channels, and it carries no blocks"
    return f"groups={layer.groups} of {layer.in_channels} channels are not its blocks"


def _end_of_search(operation: Any, layer: Any, names: dict[torch.nn.Module, str]) -> str:
    """Return why the layer is the source of no set."""
    while True:
        followers = operation.output_ops
        if not followers:
            return "nothing follows it"
        operation = followers[0]
        module = operation.get_module()
        if len(followers) > 1 or operation.type == "CG_Split":
            return "its output is used by more than one layer"
        if not isinstance(module, cls_supported_activations):
            break
    if module is None:
        return f"it feeds the operation {operation.type!r}"
    name = f"{type(module).__name__} `{names.get(module, '?')}`"
    if isinstance(module, _SCALE_DEPENDENT):
        return f"it is followed by {name}, which does not commute with a positive scale"
    if not is_convolution(module):
        return f"it feeds {name}, which AIMET does not scale across"
    grouped = _unsupported(module)
    if grouped:
        return f"it feeds {name}, which can't be scaled: {grouped}"
    if is_depthwise(layer) and is_depthwise(module):
        return f"it is a depthwise layer followed by another, {name}"
    if is_depthwise(module):
        return f"it feeds the depthwise {name}, whose output goes into no convolution that can be scaled"
    return f"AIMET pairs neither it nor {name}"


def _start_of_search(operation: Any, layer: Any, names: dict[torch.nn.Module, str]) -> str:
    """Return why the layer is the sink of no set."""
    while True:
        producers = operation.input_ops
        if not producers:
            return "its input is the model's input"
        operation = producers[0]
        module = operation.get_module()
        if operation.type == "CG_Split":
            return "its input is used by other layers too"
        if not isinstance(module, cls_supported_activations):
            break
    if module is None:
        return f"its input comes from the operation {operation.type!r}"
    name = f"{type(module).__name__} `{names.get(module, '?')}`"
    if is_convolution(module) and _unsupported(module):
        return f"its input comes from {name}, which can't be scaled"
    if is_convolution(module) and is_depthwise(layer):
        return f"as a depthwise layer it can't be the sink of {name}"
    return f"its input comes from {name}"
