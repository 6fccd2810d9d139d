"""A model with the inputs and outputs of an ONNX file: tensors by position instead of nested containers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eq_aimet.symmetry.calling import call_model, flat_forward, named_tensors

__all__ = ["flatten_call", "value_names"]


def value_names(kind: str, places: Sequence[str]) -> list[str]:
    """Return the file's names for the tensors at these places of the model's inputs or outputs.

    Example:
        >>> value_names("input", ["input"]), value_names("output", ["0", "boxes.1"])
        (['input'], ['output_0', 'output_boxes.1'])
    """
    return [kind] if len(places) == 1 else [f"{kind}_{place}" for place in places]


def flatten_call(model: torch.nn.Module, inputs: Any) -> tuple[list[str], list[str]]:
    """Change a model in place so that it takes tensors one by one and returns a tuple of tensors.

    The names of the model's layers do not change.

    Args:
        model: A model that nothing else uses.
        inputs: The inputs that the model takes now.

    Returns:
        The places of the tensors in the inputs, and the places of the tensors in the outputs.
    """
    with torch.no_grad():
        outputs = list(named_tensors(call_model(model, inputs)))

    model.forward = flat_forward(model.forward, inputs)
    return list(named_tensors(inputs, "input")), outputs
