"""Typed inputs for a model that is itself a module of a library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eq_aimet.adapters.libraries import library_of
from eq_aimet.errors import InvalidArgumentError

__all__ = ["wrap_inputs"]


def wrap_inputs(model: torch.nn.Module, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """Return the inputs, and wrap tensors in their types if `model` is a module of a library.

    Raises:
        InvalidArgumentError: If an input does not have the channels of the model's type.
    """
    library = library_of(model)
    in_type: Any = getattr(model, "in_type", None)
    if library is None or not library.owns(type(model)) or in_type is None:
        return tuple(inputs)
    types = in_type if isinstance(in_type, (tuple, list)) else (in_type,)
    wrapped = []
    for value, field_type in zip(inputs, types, strict=True):
        if isinstance(value, torch.Tensor):
            if value.dim() < 2 or value.shape[1] != field_type.size:
                raise InvalidArgumentError(
                    "dummy_input",
                    received=f"shape {tuple(value.shape)}",
                    expected=f"{field_type.size} channels, for the type {field_type}",
                    remedy="Give one batch, (batch, channels, height, width), as the model takes it.",
                )
            value = library.tensor_class(value, field_type)
        wrapped.append(value)
    return tuple(wrapped)
