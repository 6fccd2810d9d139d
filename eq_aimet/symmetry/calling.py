"""Calling a model on a tensor, a tuple or a dictionary of inputs, and naming the tensors that it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

__all__ = ["as_arguments", "call_model", "flat_forward", "map_tensors", "named_tensors", "tensors_in"]


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments of a model's `forward`.

    Args:
        inputs: One input; a tuple or list with one entry per positional input; or a dictionary that holds
            one entry per keyword.

    Example:
        >>> as_arguments((1, 2)), as_arguments({"image": 1}), as_arguments(1)
        (((1, 2), {}), ((), {'image': 1}), ((1,), {}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def call_model(model: Callable[..., Any], inputs: Any) -> Any:
    """Return the output of `model` on `inputs`, which `as_arguments` describes.

    Example:
        >>> call_model(torch.add, (torch.tensor(1), torch.tensor(2)))
        tensor(3)
        >>> call_model(torch.nn.Identity(), {"input": torch.tensor(3)})
        tensor(3)
    """
    args, kwargs = as_arguments(inputs)
    return model(*args, **kwargs)


def flat_forward(forward: Callable[..., Any], inputs: Any) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Return a `forward` that takes the tensors in `inputs` one by one, and returns a tuple of tensors.

    Args:
        forward: The `forward` of a model.
        inputs: The inputs that `forward` takes; values that are not tensors are passed on unchanged.

    Example:
        >>> flat = flat_forward(lambda a, scale: {"sum": a * scale}, {"a": torch.tensor(1), "scale": 2})
        >>> flat(torch.tensor(3))
        (tensor(6),)
    """

    def flat(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        remaining = iter(tensors)
        rebuilt = map_tensors(lambda _: next(remaining), inputs)
        return tuple(tensors_in(call_model(forward, rebuilt)))

    return flat


def named_tensors(outputs: Any, name: str = "output") -> dict[str, torch.Tensor]:
    """Return each tensor of a model's output, keyed by its place in the output.

    The name of a place consists of the positions in tuples and lists, the keys of dictionaries and the names
    of a dataclass's or named tuple's fields, joined by dots. Values that are not tensors are left out.

    Args:
        outputs: A tensor, or nested tuples, lists, dictionaries, named tuples and dataclasses of tensors.
        name: The name of the tensor if `outputs` is one tensor.

    Example:
        >>> list(named_tensors(torch.zeros(1)))
        ['output']
        >>> list(named_tensors({"scores": torch.zeros(1), "boxes": [torch.zeros(1), torch.zeros(1)]}))
        ['scores', 'boxes.0', 'boxes.1']
    """
    return {path or name: tensor for path, tensor in _walk(outputs, "")}


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return the tensors of `named_tensors` without their names.

    Example:
        >>> len(tensors_in((torch.zeros(1), {"a": torch.zeros(1)}, None)))
        2
    """
    return list(named_tensors(value).values())


def map_tensors(function: Callable[[torch.Tensor], Any], value: Any) -> Any:
    """Return `value` with `function` applied to each tensor in its tuples, lists and dictionaries.

    Example:
        >>> map_tensors(lambda tensor: tensor.double().dtype, {"image": torch.zeros(1), "scale": 2})
        {'image': torch.float64, 'scale': 2}
    """
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        mapped = {key: map_tensors(function, part) for key, part in value.items()}
        return mapped if type(value) is dict else type(value)(mapped)  # type: ignore[call-arg]
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(map_tensors(function, part) for part in value))
    if isinstance(value, (tuple, list)):
        return type(value)(map_tensors(function, part) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        changed = {field: map_tensors(function, getattr(value, field)) for field in fields}
        return dataclasses.replace(value, **changed)
    return value


def _walk(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    for key, part in _parts(value):
        yield from _walk(part, f"{path}.{key}" if path else str(key))


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the parts of a container with their names; other values have no parts."""
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name)
