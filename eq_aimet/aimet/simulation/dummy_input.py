"""The example input of a simulation: checked by running the model on it."""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.calling import call_model, map_tensors, tensors_in

__all__ = ["checked_input"]


def checked_input(model: torch.nn.Module, dummy_input: Any, *, argument: str = "dummy_input") -> Any:
    """Return the input in the model's floating-point type, after one run of the model on it.

    Args:
        model: A copy of the simulated model.
        dummy_input: A tensor; a tuple or list of positional inputs; or a dictionary of inputs by name.
        argument: The name of the argument, for messages.

    Raises:
        InvalidArgumentError: If the input holds no tensor or an empty one, or if the model fails on it.
    """
    tensors = tensors_in(dummy_input)
    shapes = ", ".join(f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in tensors)
    if not tensors or any(0 in tensor.shape for tensor in tensors):
        raise _unfit(argument, shapes or f"{type(dummy_input).__name__} without a tensor")
    parameter = next((one for one in model.parameters() if one.is_floating_point()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype

    def convert(tensor: torch.Tensor) -> torch.Tensor:
        copied = tensor.detach().clone()  # a tensor of inference mode could not be traced
        return copied.to(dtype) if copied.dtype in (torch.float32, torch.float64) else copied

    converted = map_tensors(convert, dummy_input)
    try:
        with torch.no_grad():
            call_model(model, converted)
    except Exception as error:
        raise _unfit(
            argument, f"{shapes}, on which the model fails with {type(error).__name__}: {error}"
        ) from error
    return converted


def _unfit(argument: str, received: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        argument,
        received=received,
        expected="a batch that the simulated model takes, on its device",
        remedy="Give a batch like those that the encodings were computed with.",
    )
