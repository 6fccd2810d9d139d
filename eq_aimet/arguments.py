"""Checks of arguments: each check returns the accepted value, or raises an error that names the argument."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eq_aimet.errors import InvalidArgumentError

__all__ = ["check_choice", "check_flag", "check_integer", "check_number", "check_path", "check_type"]


def check_integer(argument: str, value: Any, *, remedy: str, least: int = 1, most: int | None = None) -> int:
    """Return the value as an `int` if it is a whole number within the limits.

    Args:
        argument: The name of the argument.
        value: The received value. Integers of numpy are accepted; `True` and `4.0` are refused.
        remedy: The sentence that says what to do.
        least: The smallest number that is allowed.
        most: The largest number that is allowed. By default there is no upper limit.

    Raises:
        InvalidArgumentError: The value is something else.

    Example:
        >>> check_integer("epochs", 3, remedy="Try 8.")
        3
        >>> check_integer("epochs", 2.5, remedy="Try 8.")
        Traceback (most recent call last):
            ...
        eq_aimet.errors.InvalidArgumentError: `epochs`: received 2.5; expected an integer of at least 1. ...
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_integer and least <= value and (most is None or value <= most):
        return int(value)
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise InvalidArgumentError(
        argument, received=_shown(value), expected=f"an integer {limits}", remedy=remedy
    )


def check_number(
    argument: str, value: Any, *, remedy: str, zero: bool = False, most: float = math.inf
) -> float:
    """Return the value as a `float` if it is a finite number above 0.

    Args:
        argument: The name of the argument.
        value: The received value.
        remedy: The sentence that says what to do.
        zero: Whether 0 is allowed too.
        most: The largest number that is allowed.

    Raises:
        InvalidArgumentError: The value is something else.

    Example:
        >>> check_number("width", 1, remedy="Try 0.5.")
        1.0
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and (value > 0 or (zero and value == 0)) and value <= most:
        return float(value)
    limits = "of at least 0" if zero else "above 0"
    limits += "" if math.isinf(most) else f" and at most {most:g}"
    raise InvalidArgumentError(argument, received=_shown(value), expected=f"a number {limits}", remedy=remedy)


def check_choice(argument: str, value: Any, choices: Sequence[str], *, remedy: str) -> str:
    """Return the value if it is one of the choices.

    Raises:
        InvalidArgumentError: The value is something else.

    Example:
        >>> check_choice("device", "cpu", ("cpu", "cuda"), remedy='Try "cpu".')
        'cpu'
    """
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidArgumentError(
        argument, received=_shown(value), expected=f"one of {', '.join(map(repr, choices))}", remedy=remedy
    )


def check_flag(argument: str, value: Any) -> bool:
    """Return the value if it is `True` or `False`.

    Raises:
        InvalidArgumentError: The value is something else.

    Example:
        >>> check_flag("compile", True)
        True
    """
    if isinstance(value, bool):
        return value
    raise InvalidArgumentError(
        argument, received=_shown(value), expected="True or False", remedy="Leave it out for the default."
    )


def check_path(argument: str, value: Any) -> Path:
    """Return the value as a `Path` if it is a valid path.

    Raises:
        InvalidArgumentError: The value is empty, holds a NUL character, or is neither text nor a path.

    Example:
        >>> check_path("folder", "pcam").name
        'pcam'
    """
    if isinstance(value, (str, os.PathLike)):
        text = os.fspath(value)
        if isinstance(text, str) and text and "\0" not in text:
            return Path(text)
    raise InvalidArgumentError(
        argument,
        received=_shown(value),
        expected="the path of a file or a folder",
        remedy="Give the path as a str or as a pathlib.Path.",
    )


def check_type(argument: str, value: Any, kind: type, *, remedy: str) -> Any:
    """Return the value if it is an instance of the class.

    Raises:
        InvalidArgumentError: The value is something else.

    Example:
        >>> check_type("data", [1], list, remedy="Give a list.")
        [1]
    """
    if isinstance(value, kind):
        return value
    raise InvalidArgumentError(
        argument, received=f"a {type(value).__name__}", expected=f"a {kind.__name__}", remedy=remedy
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
