"""The errors for a model that can't be exported: the place in the code, the reason and the workaround."""

from __future__ import annotations

import copy
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from eq_aimet.adapters.libraries import ADAPTERS
from eq_aimet.adapters.tracing.inputs import BoundInputs, without_types
from eq_aimet.errors import ExportError, InvalidArgumentError
from eq_aimet.symmetry.calling import tensors_in
from eq_aimet.symmetry.copying import copy_module

__all__ = [
    "data_dependent",
    "fixed_batch_size",
    "hooks_on_wrapper",
    "is_raised_by_user",
    "low_precision",
    "own_forward",
    "place_of",
    "random_numbers",
    "script_module",
    "shared_in_place",
    "tracing_error",
    "unregistered",
    "wrong_channels",
    "wrong_type",
]


def data_dependent(what: str) -> ExportError:
    """Return the error for a line of the model that needs a tensor's values; `what` names the use."""
    return ExportError(
        f"The model can't be traced: {_here()} {what}. "
        "A plain graph has one path for all data: take this decision out of `forward`."
    )


def fixed_batch_size(what: str) -> ExportError:
    """Return the error for a line of the model that fixes the batch size; `what` describes the line."""
    return ExportError(
        f"The model can't be traced: {_here()} {what}. "
        "The exported model would take this batch size only: write `x.shape[0]` where the size is used, "
        "with tensor methods such as `view`, `reshape` or `new_zeros`."
    )


def shared_in_place(operation: str, scope: str) -> ExportError:
    """Return the error for a change in place that another part of the model sees through a view."""
    return ExportError(
        f"`{scope or 'model'}`: {operation} changes a tensor in place of which a view is used later. Write "
        "the operation out of place, for example `x = x + y` for `x += y`, or `inplace=False`."
    )


def wrong_type(module: Any, path: str, received: str, expected: Any) -> ExportError:
    """Return the error for a call of a module with an input that does not have the module's field type."""
    return ExportError(
        f"`model.{path}` ({type(module).__name__}): received {received}, expected a `GeometricTensor` of "
        f"type {expected}. "
        "Give the module the field type of what it is called with."
    )


def wrong_channels(module: Any, path: str, received: int, out_type: Any) -> ExportError:
    """Return the error for a plain module whose output does not have the channels of the field type."""
    return ExportError(
        f"`model.{path}` ({type(module).__name__}): its plain module returns {received} channels, but the "
        f"output type {out_type} has {out_type.size}. Correct the plugin, or the `export()`, that returned "
        "the plain module."
    )


def own_forward(module: torch.nn.Module, path: str) -> ExportError:
    """Return the error for a module of a library whose `forward` was replaced on the object."""
    return ExportError(
        f"`model.{path}` ({type(module).__name__}): its `forward` was replaced on the object, so the "
        "module does not compute what its class says. Write a class for the new `forward`."
    )


def script_module(path: str) -> ExportError:
    """Return the error for a module that TorchScript has compiled."""
    return ExportError(
        f"`model.{path}` is a module of TorchScript, which can't be traced. Export the Python module that "
        "`torch.jit.script` or `torch.jit.trace` was called with."
    )


def unregistered(module: torch.nn.Module) -> ExportError:
    """Return the error for a module in training mode that `model.eval()` does not reach."""
    return ExportError(
        f"The model can't be traced: {_here()} calls a {type(module).__name__} that is no submodule of the "
        "model and is in training mode. `model.eval()` does not reach it: keep it in an attribute or a "
        "`torch.nn.ModuleList` of the model."
    )


def hooks_on_wrapper(module: torch.nn.Module) -> ExportError:
    """Return the error for hooks on a wrapper such as that of `torch.compile`."""
    return ExportError(
        f"a {type(module).__name__} has forward hooks, which the model inside of it does not run. "
        "Register the hooks on the model inside, or remove them."
    )


def random_numbers(name: str) -> ExportError:
    """Return the error for a line of the model that draws random numbers by the function `name`."""
    return ExportError(
        f"The model can't be traced: {_here()} draws random numbers (`{name}`) in eval mode. A plain model "
        "computes the same for the same input: draw the numbers in training only, or store them in a buffer."
    )


def low_precision(dtype: torch.dtype) -> ExportError:
    """Return the error for a line of the model that computes in a low precision."""
    return ExportError(
        f"The model can't be traced: {_here()} computes in {dtype}. AIMET simulates low precision from a "
        "model in float32: remove the cast, or the autocast, from `forward`."
    )


def tracing_error(error: Exception, model: torch.nn.Module, inputs: BoundInputs) -> Exception:
    """Return the error for a model whose `forward` can't be traced, or fails even without tracing."""
    failure = _failure_without_tracing(model, inputs)
    place, reason = place_of(failure or error), _reason(failure or error)
    if failure is None:
        return ExportError(
            f"The model can't be traced: {place} fails ({reason}). Write this line with torch operations on "
            "tensors and equivariant modules, or register a plugin whose `eq_aimet_export_module` returns a "
            "plain module for the part that has it."
        )
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in(without_types(inputs.values)))
    received = f"inputs of shape {shapes}, on which the model fails at {place} ({reason})"
    if not is_raised_by_user(failure) and type(failure) in (RuntimeError, ValueError, IndexError):
        return InvalidArgumentError(
            "dummy_input",
            received=received,
            expected="inputs as the model's `forward` takes them",
            remedy="The model fails without the export too. Give a batch on which it runs, or correct this "
            "line.",
        )
    return ExportError(
        f"The model fails without the export too: it received {received}. Correct this line, or give a "
        "`dummy_input` that it accepts."
    )


def _failure_without_tracing(model: torch.nn.Module, inputs: BoundInputs) -> Exception | None:
    """Return the exception that a copy of the model raises on the inputs, or `None`."""
    try:
        twin = copy_module(model).eval()
        args, kwargs = copy.deepcopy(inputs.arguments(inputs.values))
    except Exception:  # noqa: BLE001 - without a copy, the exception is unknown
        return None
    try:
        with torch.no_grad():
            twin(*args, **kwargs)
    except Exception as failure:  # noqa: BLE001 - the caller asks for this exception
        return failure
    return None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def is_raised_by_user(error: BaseException) -> bool:
    """Return whether the user's own code raised the error, and not torch or a library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and not frames[-1].filename.startswith(_foreign())


def _here() -> str:
    return _place(traceback.extract_stack()[:-2])


def place_of(error: BaseException) -> str:
    """Return the innermost line of the user's own code that the error passed through."""
    return _place(traceback.extract_tb(error.__traceback__))


def _foreign() -> tuple[str, ...]:
    """Return the folders of torch, of the libraries and of this package."""
    packages = [sys.modules[name] for name in ("torch", *ADAPTERS) if name in sys.modules]
    own = Path(__file__).parents[1]
    return tuple(map(str, (own, *(Path(str(package.__file__)).parent for package in packages))))


def _place(frames: traceback.StackSummary | list[traceback.FrameSummary]) -> str:
    """Return the innermost line of the user's own code, or the innermost line if there is no such line."""
    users = [frame for frame in frames if not frame.filename.startswith(_foreign())]
    frame = (users or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}: `{frame.line}`"
