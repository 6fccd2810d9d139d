"""Dummy inputs, bound to the parameters of a model's `forward`, with and without field types."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from eq_aimet.adapters.libraries import is_typed_tensor, library_of
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.calling import as_arguments

__all__ = ["BoundInputs", "bind_inputs", "with_types_of", "without_types"]


@dataclass(frozen=True)
class BoundInputs:
    """The inputs, by the names of the parameters of `forward`.

    Attributes:
        values: Each input by its name, which the plain model's `forward` will take.
        positional: The names of the inputs that are passed by position.
        keywords: The name of each input that is passed by keyword, which is also its keyword.
    """

    values: dict[str, Any]
    positional: tuple[str, ...]
    keywords: tuple[str, ...]

    def arguments(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of `forward`, with `values` in the places of the inputs."""
        return tuple(values[name] for name in self.positional), {name: values[name] for name in self.keywords}


def bind_inputs(model: torch.nn.Module, dummy_input: Any) -> BoundInputs:
    """Return the inputs by the names of the parameters of the model's `forward`.

    Tensors get their types if `model` is a module of a library itself.

    Raises:
        InvalidArgumentError: If the model's `forward` does not take this number of inputs or these keywords,
            or an input does not have the channels of its type.
    """
    args, kwargs = as_arguments(dummy_input)
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        received = f"the keywords {', '.join(map(str, kwargs))}" if kwargs else f"{len(args)} inputs"
        raise InvalidArgumentError(
            "dummy_input",
            received=received,
            expected=f"those of the model's `forward({', '.join(signature.parameters)})` ({error})",
            remedy="Give a tuple with one tensor for each input in this order, or a dictionary with one "
            "tensor for each keyword.",
        ) from error
    names = _positional_names(signature, len(args))
    order = [name for name in (*signature.parameters, *bound.kwargs) if name in kwargs]
    keywords = tuple(dict.fromkeys(order))
    values = dict(zip(names, _with_own_types(model, args), strict=True))
    values.update({name: kwargs[name] for name in keywords})
    if keywords and not args:
        typed = _with_own_types(model, tuple(values.values()))
        values = dict(zip(values, typed, strict=True))
    return BoundInputs(values, names, keywords)


def _positional_names(signature: inspect.Signature, count: int) -> tuple[str, ...]:
    names: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{name}_{place}" for place in range(count - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(name)
    return tuple(names[:count])


def _with_own_types(model: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the inputs, and wrap tensors in their types if `model` is a module of a library."""
    library = library_of(model)
    in_type: Any = getattr(model, "in_type", None)
    if library is None or not library.owns(type(model)) or in_type is None:
        return inputs
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


def without_types(value: Any) -> Any:
    """Return the value with tensors instead of typed tensors, also in tuples, lists and dictionaries."""
    if is_typed_tensor(value):
        return value.tensor
    if isinstance(value, dict):
        return type(value)({key: without_types(part) for key, part in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(without_types, value))
    if isinstance(value, (tuple, list)):
        return type(value)(map(without_types, value))
    return value


def with_types_of(symbols: Any, value: Any) -> Any:
    """Return the symbols, each wrapped in the field type that `value` has in the same place."""
    if is_typed_tensor(value):
        return type(value)(symbols, value.type)
    if isinstance(value, dict):
        return type(value)({key: with_types_of(symbols[key], part) for key, part in value.items()})
    if isinstance(value, (tuple, list)):
        parts = [with_types_of(symbol, part) for symbol, part in zip(symbols, value, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return symbols
