"""Prepares a model for AIMET, which traces it with `torch.jit.trace`; this function takes only tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from eq_aimet.aimet.patching import patch, patch_all
from eq_aimet.symmetry.calling import flat_forward, tensors_in

__all__ = ["traceable_call", "without_compilation"]


@contextmanager
def traceable_call(model: torch.nn.Module, inputs: Any, output: Any) -> Iterator[Any]:
    """Let a model take and return only tensors, in place, until the context ends; return its inputs.

    Args:
        model: The model.
        inputs: A tensor; a tuple or list of positional inputs; or a dictionary of inputs by name.
        output: The model's output for `inputs`. If inputs and output consist of tensors, nothing changes.
    """
    if _holds_tensors(inputs) and _holds_tensors(output):
        yield tuple(inputs) if isinstance(inputs, list) else inputs
        return
    undo = patch(model, "forward", flat_forward(model.forward, inputs))
    try:
        yield tuple(tensors_in(inputs))
    finally:
        undo()


def _holds_tensors(value: Any) -> bool:
    parts = value if type(value) in (tuple, list) else [value]
    return all(isinstance(part, torch.Tensor) for part in parts)


@contextmanager
def without_compilation(model: torch.nn.Module) -> Iterator[None]:
    """Run the compiled parts of a model without `torch.compile`, until the context ends."""
    changes: list[tuple[Any, str, Any]] = []
    for module in model.modules():
        written = module._modules.get("_orig_mod")
        if written is not None:
            changes.append((module, "forward", written.__call__))
        if getattr(module, "_compiled_call_impl", None) is not None:
            changes.append((module, "_compiled_call_impl", None))
    undo = patch_all(changes)
    try:
        yield
    finally:
        undo()
