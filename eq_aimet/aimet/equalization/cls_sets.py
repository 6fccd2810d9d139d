"""Finds the layers that AIMET may scale: consecutive convolutions in one forward pass of the model.

AIMET's own graph does not show that a layer runs twice, that its output is also an output of the model, or
that a forward hook changes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from aimet_torch.cross_layer_equalization import cls_supported_activations

from eq_aimet.aimet.equalization.block_scaling import ClsSet, Convolution
from eq_aimet.aimet.equalization.scale_tracing.module_rules import has_own_forward
from eq_aimet.aimet.equalization.scale_tracing.scale_trace import Step, Trace
from eq_aimet.symmetry.layers import is_convolution, is_layer

__all__ = ["have_relu_between", "layers_in_a_row", "unsafe_layers"]


def unsafe_layers(trace: Trace) -> dict[torch.nn.Module, str]:
    """Return the layers whose scaling would affect several places at once, each with the reason."""
    holders = Counter(
        parameter.data_ptr()
        for module in trace.names
        for parameter in module._parameters.values()
        if parameter is not None
    )
    reasons: dict[torch.nn.Module, str] = {}
    for layer, name in trace.names.items():
        if not is_layer(layer):
            continue
        if trace.runs[layer] > 1:
            reasons[layer] = f"`{name}` runs {trace.runs[layer]} times in one forward pass"
        elif has_own_forward(layer):
            reasons[layer] = f"`{name}` is a {type(layer).__name__} with a `forward` of its own"
        elif any(holders[parameter.data_ptr()] > 1 for parameter in layer.parameters()):
            reasons[layer] = f"`{name}` shares its weight with another layer"
        elif any(trace.uses[id(parameter)] for parameter in layer.parameters()):
            reasons[layer] = f"the model uses the weight or the bias of `{name}` outside of `{name}`, too"
    return reasons


def layers_in_a_row(
    trace: Trace, unsafe: Collection[torch.nn.Module], folded: Collection[torch.nn.Module]
) -> list[list[Convolution]]:
    """Return AIMET's groups of convolutions: only ReLU and PReLU modules lie between the layers of a group.

    Args:
        trace: A forward pass of the model.
        unsafe: Layers that must not be scaled; they end a group.
        folded: Batch norms that were folded since the forward pass.
    """
    successors: dict[Any, list[Any]] = {}
    for step in trace.steps:
        if step.module is not None and is_convolution(step.module) and step.module not in unsafe:
            following = _between(trace, step, folded)[-1:]
            sinks = [other.module for other in following if other.module is not None]
            successors[step.module] = [sink for sink in sinks if is_convolution(sink) and sink not in unsafe]
    followers = {sink for sinks in successors.values() for sink in sinks}
    groups = []
    for layer in successors:
        if layer not in followers:
            group = [layer]
            while successors[group[-1]]:
                group += successors[group[-1]]
            groups.append(group)
    return [group for group in groups if len(group) > 1]


def have_relu_between(
    trace: Trace, cls_sets: list[ClsSet], folded: Collection[torch.nn.Module]
) -> list[bool | tuple[bool, ...]]:
    """Return for each CLS set whether a ReLU follows its source, and its depthwise layer if it has one."""
    steps = {step.module: step for step in trace.steps if step.module is not None}
    found: list[bool | tuple[bool, ...]] = []
    for cls_set in cls_sets:
        relus = tuple(any(map(_is_relu, _between(trace, steps[layer], folded))) for layer in cls_set[:-1])
        found.append(relus if len(relus) > 1 else relus[0])
    return found


def _between(trace: Trace, step: Step, folded: Collection[torch.nn.Module]) -> list[Step]:
    """Return the next steps up to the first that is not a ReLU, while each is the last one's only reader."""
    steps: list[Step] = []
    while True:
        (value,) = step.written
        following = trace.readers.get(value, [])
        if len(following) != 1 or value in trace.outputs:
            return steps
        step = following[0]
        steps.append(step)
        if not (_is_relu(step) or step.module in folded):
            return steps


def _is_relu(step: Step) -> bool:
    return step.only_passes and isinstance(step.inside, cls_supported_activations)
