"""The checks of `export_model`'s arguments, before the model runs: one error that names the argument."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch

from eq_aimet.adapters.tracing.inputs import without_types
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.calling import as_arguments, map_tensors

__all__ = ["check_model", "checked_inputs"]

_REAL = (torch.float32, torch.float64)


def check_model(model: object) -> None:
    """Check that `model` is a network with weights that can be exported.

    Raises:
        InvalidArgumentError: If `model` is not such a network.
    """
    if not isinstance(model, torch.nn.Module):
        raise _unfit_model(
            type(model).__name__,
            "a torch.nn.Module",
            "Give the network itself, not its class, state dict or path.",
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise _unfit_model(
            "a module of TorchScript",
            "a Python module",
            "Give the module that `torch.jit.script` or `torch.jit.trace` was called with.",
        )
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        _check_weight(name, value)


def _check_weight(name: str, value: torch.Tensor) -> None:
    if torch.nn.parameter.is_lazy(value):
        raise _unfit_model(
            f"`{name}` without a shape", "weights that have shapes", "Run the model once on a batch first."
        )
    if value.is_meta:
        raise _unfit_model(f"`{name}` on the meta device", "weights with values", "Load the weights first.")
    if not value.is_floating_point() or value.layout != torch.strided:
        return
    if value.dtype not in _REAL:
        raise _unfit_model(
            f"`{name}` in {value.dtype}",
            "weights in float32 or float64",
            "Export `model.float()`; AIMET simulates lower precision from there.",
        )
    if not torch.isfinite(value).all():
        raise _unfit_model(
            f"NaN or infinite values in `{name}`",
            "finite weights",
            "Load the last checkpoint from before the training diverged.",
        )


def _unfit_model(received: str, expected: str, remedy: str) -> InvalidArgumentError:
    return InvalidArgumentError("model", received=received, expected=expected, remedy=remedy)


def checked_inputs(model: torch.nn.Module, dummy_input: Any) -> Any:
    """Return the dummy inputs; tensors made in `torch.inference_mode` are copied.

    Raises:
        InvalidArgumentError: If an input is not a dense, non-empty tensor with the model's device and dtype.
    """
    args, kwargs = as_arguments(dummy_input)
    for value in (*args, *kwargs.values()):
        for tensor in _leaves(value):
            _check_tensor(model, tensor)
    with torch.inference_mode(False):
        return map_tensors(lambda tensor: tensor.clone() if tensor.is_inference() else tensor, dummy_input)


def _leaves(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of one input.

    Raises:
        InvalidArgumentError: If the input holds an object that is not a tensor, or if it holds no tensor.
    """
    value = without_types(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else None
    if parts:
        for part in parts:
            yield from _leaves(part)
    elif isinstance(value, torch.Tensor):
        yield value
    else:
        raise _unfit_input(
            type(value).__name__ if parts is None else f"an empty {type(value).__name__}",
            "a tensor, a tuple of tensors or a dictionary of tensors",
            "Give one batch as the model takes it.",
        )


def _check_tensor(model: torch.nn.Module, tensor: torch.Tensor) -> None:
    if tensor.is_nested or tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "nested" if tensor.is_nested else "sparse"
        raise _unfit_input(
            f"a {kind} tensor", "a dense tensor of plain numbers", "Convert it to a dense one."
        )
    if 0 in tensor.shape:
        raise _unfit_input(
            f"an empty tensor of shape {tuple(tensor.shape)}", "at least one image", "Give a batch with data."
        )
    weight = next((value for value in model.parameters() if value.is_floating_point()), None)
    device = torch.device("cpu") if weight is None else weight.device
    if tensor.device != device and (weight is not None or tensor.is_meta):
        raise _unfit_input(
            f"a tensor on {tensor.device}",
            f"one on {device}, where the model is",
            f"Give `dummy_input.to({str(device)!r})`."
            if not tensor.is_meta
            else "Give a tensor with values, for example `torch.rand(…)`.",
        )
    if (
        weight is None
        or weight.dtype == tensor.dtype
        or not (tensor.is_floating_point() or tensor.is_complex())
    ):
        return
    raise _unfit_input(
        f"a tensor of {tensor.dtype}",
        f"{weight.dtype}, as the model's weights are",
        f"Give `dummy_input.to({weight.dtype})`.",
    )


def _unfit_input(received: str, expected: str, remedy: str) -> InvalidArgumentError:
    return InvalidArgumentError("dummy_input", received=received, expected=expected, remedy=remedy)
