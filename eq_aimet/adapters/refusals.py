"""What the tracer says when a model can't be exported: the place in the code, the reason, the way round."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eq_aimet.adapters.libraries import ADAPTERS
from eq_aimet.errors import ExportError, InvalidArgumentError

__all__ = ["data_dependent", "fixed_batch_size", "shared_in_place", "tracing_error", "wrong_type"]


def data_dependent(what: str) -> ExportError:
    """Return the error for a line of the model that needs a tensor's values; `what` it does with them."""
    return ExportError(
        f"The model can't be traced: {_place(traceback.extract_stack()[:-2])} {what}. "
        "A plain graph has one path for all data: take this decision out of `forward`."
    )


def fixed_batch_size(what: str) -> ExportError:
    """Return the error for a line of the model that fixes the batch size; `what` it does."""
    return ExportError(
        f"The model can't be traced: {_place(traceback.extract_stack()[:-2])} {what}. "
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
    """Return the error for a module that is called with something else than its field type."""
    return ExportError(
        f"`model.{path}` ({type(module).__name__}): received {received}, expected a `GeometricTensor` of "
        f"type {expected}. "
        "Give the module the field type of what it is called with."
    )


def tracing_error(error: Exception, inputs: Sequence[Any]) -> Exception:
    """Return the error for a model whose `forward` fails on `inputs` or can't be traced."""
    place = _place(traceback.extract_tb(error.__traceback__))
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if type(error) in (RuntimeError, ValueError, IndexError):
        shapes = [tuple(getattr(value, "shape", ())) for value in inputs]
        return InvalidArgumentError(
            "dummy_input",
            received=f"inputs of shape {', '.join(map(str, shapes))}, on which the model fails at {place} "
            f"({reason})",
            expected="inputs as the model's `forward` takes them",
            remedy="Give one batch as the model sees it in training.",
        )
    return ExportError(
        f"The model can't be traced: {place} fails ({reason}). Write this line with torch operations on "
        "tensors and equivariant modules, or register a plugin whose `eq_aimet_export_module` returns a "
        "plain module for the part that has it."
    )


def _place(frames: traceback.StackSummary | list[traceback.FrameSummary]) -> str:
    """Return the innermost line that is neither torch's, a library's nor this package's tracer's."""
    packages = [sys.modules[name] for name in ("torch", *ADAPTERS) if name in sys.modules]
    foreign = tuple(str(Path(str(file)).parent) for file in (__file__, *(p.__file__ for p in packages)))
    users = [frame for frame in frames if not frame.filename.startswith(foreign)]
    frame = (users or list(frames))[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}: `{frame.line}`"
