"""How a group element acts on each output of a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.elements import Element

__all__ = ["TransformOutput", "expected_output", "transform_for"]

TransformOutput: TypeAlias = Callable[..., torch.Tensor]


def transform_for(transform_output: TransformOutput | None, name: str) -> TransformOutput | None:
    """Return `transform_output` as a function of (output, element) for the output called `name`.

    Args:
        transform_output: A function of (output, element), or of (output, element, name). The name is passed
            if the function requires three positional arguments.
        name: The output's name, see `named_tensors`.

    Raises:
        InvalidArgumentError: If `transform_output` is not a function of two or three arguments.

    Example:
        >>> def negate_vectors(output, element, name):
        ...     return -output if name == "vectors" else output
        >>> act = transform_for(negate_vectors, "vectors")
        >>> float(act(torch.tensor(2.0), Element(180)))
        -2.0
    """
    if transform_output is None:
        return None
    if not callable(transform_output):
        raise _unfit_transform(f"a {type(transform_output).__name__}")
    transform = transform_output
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):  # some builtin functions have no signature
        return transform
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [
        one for one in parameters if one.kind in positional and one.default is inspect.Parameter.empty
    ]
    if len(required) == 3:
        return lambda output, element: transform(output, element, name)
    if len(required) > 3:
        raise _unfit_transform(f"a function of {len(required)} arguments")
    return transform


def expected_output(
    reference: torch.Tensor, element: Element, transform: TransformOutput | None, name: str
) -> torch.Tensor:
    """Return the output for the unturned input after `element` has acted on this output.

    Args:
        reference: The output for the unturned input.
        element: The turn or reflection of the input.
        transform: A function of (output, element). If it is `None`, an output of four or more dimensions is
            turned in its last two, and another output is invariant.
        name: The output's name, for messages.

    Raises:
        InvalidArgumentError: If `transform_output` fails or does not return a tensor.
    """
    if transform is None:
        return element.turn(reference) if reference.dim() >= 4 else reference
    try:
        expected = transform(reference, element)
    except Exception as error:
        raise _unfit_transform(
            f"a function that raises {type(error).__name__}: {error} for the output {name!r} of shape "
            f"{tuple(reference.shape)}"
        ) from error
    if not isinstance(expected, torch.Tensor):
        raise _unfit_transform(f"a function that returns a {type(expected).__name__} for the output {name!r}")
    return expected


def _unfit_transform(received: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "transform_output",
        received=received,
        expected="a function of (output, element), or of (output, element, name), that returns a tensor",
        remedy="Leave it out if outputs of four dimensions are images and the other outputs are invariant.",
    )
