"""The reasons why a layer was not equalized: a scale can't move on its output side or its input side."""

from __future__ import annotations

import torch

from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.symmetry.layers import is_layer

__all__ = ["reasons_left_out", "scaled_with"]


def reasons_left_out(recorder: Recorder, names: dict[torch.nn.Module, str]) -> dict[torch.nn.Module, str]:
    """Return the reason for each layer of the model that is in no scaled CLS set and in no region.

    Args:
        recorder: The changes that the hooks recorded.
        names: The dotted name of each module.
    """
    equalized = {layer for scaled in recorder.scaled for layer in scaled.layers}
    equalized |= {layer for region in recorder.regions for layer in (*region.sources, *region.sinks)}
    dropped = {layer for cls_set in recorder.dropped for layer in cls_set}
    outputs = {joint.layer: joint for joint in recorder.joints.sources}
    inputs = {joint.layer: joint for joint in recorder.joints.sinks}
    reasons: dict[torch.nn.Module, str] = {}
    for layer in names:
        if not is_layer(layer) or layer in equalized:
            continue
        if layer in recorder.unsafe:
            reasons[layer] = recorder.unsafe[layer]
        elif layer in dropped:
            reasons[layer] = "its CLS set was dropped: a plugin took it out"
        elif layer not in outputs:
            reasons[layer] = "it is not reached from the input"
        else:
            output = outputs[layer].reason or "no layer that can be scaled reads it"
            source = inputs[layer].reason or "no layer that can be scaled writes it"
            reasons[layer] = f"its output: {output}; its input: {source}"
    return reasons


def scaled_with(recorder: Recorder, names: dict[torch.nn.Module, str], layer: torch.nn.Module) -> str:
    """Return, as a part of a sentence, with which layers a layer was scaled; empty if it was not scaled."""
    groups = [scaled.layers for scaled in recorder.scaled]
    groups += [(*region.sources, *region.sinks) for region in recorder.regions]
    found = [" → ".join(f"`{names[member]}`" for member in group) for group in groups if layer in group]
    return f", which was scaled with {' and with '.join(found)}" if found else ""
