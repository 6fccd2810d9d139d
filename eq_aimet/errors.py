"""The errors that eq_aimet raises.

Every error that a user can cause derives from `EqAimetError`. Its text names the argument, states the
received and the expected value, and ends with the remedy.
"""

from __future__ import annotations

__all__ = [
    "EqAimetError",
    "InvalidArgumentError",
    "ExportError",
    "EqualizationError",
    "AsymmetryError",
    "EquivarianceError",
    "ForwardError",
    "DataError",
    "MissingPackageError",
    "PluginError",
]


class EqAimetError(Exception):
    """The base of all errors of this package."""


class InvalidArgumentError(EqAimetError, ValueError):
    """An argument has a wrong value, shape, dtype or device."""

    def __init__(self, argument: str, *, received: object, expected: str, remedy: str) -> None:
        self.argument = argument
        self.received = received
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"`{argument}`: received {received}; expected {expected}. {remedy}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_invalid_argument, (self.argument, str(self.received), self.expected, self.remedy)


def _rebuild_invalid_argument(
    argument: str, received: object, expected: str, remedy: str
) -> InvalidArgumentError:
    return InvalidArgumentError(argument, received=received, expected=expected, remedy=remedy)


class ExportError(EqAimetError):
    """A module of an equivariant network has no exact plain equivalent."""


class EqualizationError(EqAimetError):
    """A model can't be equalized in its present form."""


class AsymmetryError(EqAimetError):
    """The weights of a layer are not tied in the way that the layer's actions require."""


class EquivarianceError(EqAimetError, AssertionError):
    """A model is not equivariant within the requested tolerance."""


class ForwardError(EqAimetError):
    """The model's own code failed, or gave an output that can't be used, when eq_aimet called the model.

    The error of the model's code is the `__cause__`.
    """


class DataError(EqAimetError):
    """A data file is missing or damaged, or its content does not match its name."""


class MissingPackageError(EqAimetError, ImportError):
    """A package that a function needs is not installed, does not work here, or is too old."""


class PluginError(EqAimetError):
    """A plugin fails, or returns a value that its hook does not allow."""
