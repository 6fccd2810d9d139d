"""Running a model so that its equivariance can be judged: its inputs, a copy of it, and its outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch

from eq_aimet.errors import ForwardError, InvalidArgumentError
from eq_aimet.symmetry.calling import call_model, map_tensors, named_tensors
from eq_aimet.symmetry.precision import ComputeIn

__all__ = ["Inputs", "checked_inputs", "check_module", "copy_for_judging", "map_images", "run_model"]

Inputs: TypeAlias = "torch.Tensor | tuple[torch.Tensor, ...] | list[torch.Tensor] | dict[str, torch.Tensor]"


def checked_inputs(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Return the inputs with their floating-point tensors in `dtype`.

    Args:
        inputs: A tensor of square images, (…, channels, H, H); or a tuple, list or dictionary of tensors, at
            least one of them with images.
        dtype: The floating-point type to compute in.

    Raises:
        InvalidArgumentError: If `dtype` is not a floating-point type, or the inputs hold no square images,
            or values that are not finite.
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InvalidArgumentError(
            "dtype",
            received=dtype,
            expected="a floating-point torch.dtype",
            remedy="Leave it out to compute in float64.",
        )
    tensors = _listed(inputs)
    if not tensors:
        raise _unfit_inputs(f"an empty {type(inputs).__name__}")
    for tensor in tensors:
        _check_tensor(tensor)
    if not any(is_image(tensor) for tensor in tensors):
        raise _unfit_inputs(f"shape {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}")
    return _map(lambda tensor: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor, inputs)


def is_image(tensor: torch.Tensor) -> bool:
    """Return whether an element turns this input: whether it has four or more dimensions."""
    return tensor.dim() >= 4


def map_images(inputs: Inputs, function: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
    """Return the inputs with `function` applied to the images among them."""
    return _map(lambda tensor: function(tensor) if is_image(tensor) else tensor, inputs)


def check_module(model: torch.nn.Module) -> None:
    """Check that `model` is a module.

    Raises:
        InvalidArgumentError: If `model` is not a module, for example a simulation of AIMET.
    """
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__}",
            expected="a torch.nn.Module",
            remedy="Of AIMET's QuantizationSimModel pass `sim.model`.",
        )


def copy_for_judging(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a copy of the model in eval mode, with its floating-point parameters and buffers in `dtype`.

    Raises:
        InvalidArgumentError: If `model` is not a module, or can't be copied.
    """
    check_module(model)
    try:
        return copy.deepcopy(model).to(dtype).eval()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__} that can't be copied to {dtype} ({error})",
            expected="a module that supports copy.deepcopy and .to(dtype)",
            remedy="Detach tensors that the model holds outside of its parameters and buffers.",
        ) from error


def run_model(
    model: torch.nn.Module, inputs: Inputs, dtype: torch.dtype, when: str
) -> dict[str, torch.Tensor]:
    """Return the output tensors of `model` by name; integers and booleans as float64.

    Args:
        model: The model to call.
        inputs: A tensor or tuple for positional arguments, or a dictionary for arguments by name.
        dtype: The floating-point type to compute in, also where the model's code asks for another type.
        when: The description of the inputs for messages, e.g. "the unturned inputs".

    Raises:
        ForwardError: If the model's own code raises an error, or an output is not finite.
    """
    name = type(model).__name__
    try:
        with torch.no_grad(), ComputeIn(dtype):
            outputs = call_model(model, inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in _listed(inputs))
        raise ForwardError(
            f"`forward` of {name} raised {type(error).__name__} on {when} of shape {shapes}: {error}"
        ) from error
    named = named_tensors(outputs)
    if not named:
        raise ForwardError(
            f"`forward` of {name} returned a {type(outputs).__name__} without a tensor; expected a tensor, "
            "or a tuple, list or dictionary of tensors."
        )
    for output, tensor in named.items():
        if not torch.isfinite(tensor).all():
            raise ForwardError(
                f"`forward` of {name} returned NaN or infinite values on {when}"
                + (f", in its output {output!r}" if len(named) > 1 else "")
                + ". Such an output can't be compared. Look at the weights and at the inputs."
            )
    return {
        output: tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.double()
        for output, tensor in named.items()
    }


def _map(function: Callable[[torch.Tensor], torch.Tensor], inputs: Inputs) -> Inputs:
    mapped: Inputs = map_tensors(function, inputs)
    return mapped


def _listed(inputs: Inputs) -> list[torch.Tensor]:
    if isinstance(inputs, dict):
        return list(inputs.values())
    return list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]


def _check_tensor(tensor: object) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise _unfit_inputs(f"a {type(tensor).__name__}")
    if 0 in tensor.shape or (is_image(tensor) and tensor.shape[-1] != tensor.shape[-2]):
        raise _unfit_inputs(f"shape {tuple(tensor.shape)}")
    if is_image(tensor) and not tensor.is_floating_point():
        raise _unfit_inputs(f"images of {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise _unfit_inputs("NaN or infinite values")


def _unfit_inputs(received: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "inputs",
        received=received,
        expected="a finite floating-point tensor of square images, (batch, channels, H, H), or a tuple, list "
        "or dictionary of tensors with such images among them",
        remedy="Convert to float, add the batch dimension, or crop the images to squares.",
    )
