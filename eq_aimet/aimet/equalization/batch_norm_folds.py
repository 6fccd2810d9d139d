"""Finds the batch norms that AIMET may fold, and the reason for each other norm, in one forward pass."""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.aimet.equalization.scale_tracing.scale_trace import Trace
from eq_aimet.symmetry.layers import is_layer

__all__ = ["drop_faulty_folds", "fault_of_fold", "reason_not_folded"]


def drop_faulty_folds(trace: Trace, *lists: list[Any]) -> dict[torch.nn.Module, str]:
    """Remove the pairs that can't be folded from AIMET's lists, in place; return the reason for each norm.

    Args:
        trace: A forward pass of the model.
        lists: Lists of pairs (layer, norm) or (norm, layer), in the order in which the two run.
    """
    faults: dict[torch.nn.Module, str] = {}
    for pairs in lists:
        for first, second in list(pairs):
            fault = fault_of_fold(trace, first, second)
            if fault:
                pairs.remove((first, second))
                faults[second if is_layer(first) else first] = fault
    return faults


def fault_of_fold(trace: Trace, first: torch.nn.Module, second: torch.nn.Module) -> str:
    """Return why a layer and a batch norm can't be folded into one, or an empty string.

    Args:
        trace: A forward pass of the model.
        first: The layer or norm that runs first.
        second: The norm or layer that runs next.
    """
    one, two = trace.names.get(first, "?"), trace.names.get(second, "?")
    if trace.runs[first] != trace.runs[second]:
        counts = f"{trace.runs[first]} and {trace.runs[second]} times"
        return f"`{one}` and `{two}` run {counts} in one forward pass"
    for step in trace.steps:
        if step.module is first:
            (value,) = step.written
            following = trace.readers.get(value, [])
            if value in trace.outputs or [reader.module for reader in following] != [second]:
                return f"more than `{two}` reads what `{one}` computes"
    return ""


def reason_not_folded(trace: Trace, norm: torch.nn.Module) -> str:
    """Return why AIMET does not fold a batch norm, judged by the step before the norm."""
    step = next((step for step in trace.steps if step.module is norm), None)
    if not trace.runs[norm]:
        return "it does not run"
    if step is None or not isinstance(norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
        return f"AIMET folds no {type(norm).__name__}"
    writer = next((other for other in trace.steps if set(other.written) & set(step.read)), None)
    if writer is None:
        return "it reads the input of the model, and no layer that AIMET could fold it into reads it alone"
    inside = writer.inside
    name = trace.names.get(inside, "") if inside is not None else ""
    described = f"{type(inside).__name__} `{name}`" if name else "an operation of the model itself"
    if inside is not None and is_layer(inside):
        return f"AIMET folds no batch norm into {described}"
    return f"it follows {described}, and no layer that AIMET could fold it into reads it alone"
