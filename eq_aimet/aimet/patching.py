"""Changes to attributes of classes, modules and objects that can be taken back.

Each change returns an undo: a function that puts the attribute back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

__all__ = ["Undo", "patch", "patch_all"]

_ABSENT = object()


@dataclass(frozen=True)
class Undo:
    """Puts one attribute back as it was, when called.

    Attributes:
        owner: The class, module or object.
        name: The name of the attribute.
        former: The former entry of the owner's `__dict__`, or a mark that there was no entry.
    """

    owner: Any
    name: str
    former: Any

    def __call__(self) -> None:
        """Put the attribute back."""
        if self.former is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.former)


def patch(owner: Any, name: str, value: Any) -> Undo:
    """Set an attribute; return the undo.

    The undo keeps the raw entry of `__dict__`: `getattr` unwraps a staticmethod or classmethod, so its result
    could not be put back.

    Example:
        >>> class Scale:
        ...     factor = 1
        >>> undo = patch(Scale, "factor", 2)
        >>> Scale.factor
        2
        >>> undo()
        >>> Scale.factor
        1
    """
    undo = Undo(owner, name, vars(owner).get(name, _ABSENT))
    setattr(owner, name, value)
    return undo


def patch_all(changes: Iterable[tuple[Any, str, Any]]) -> Callable[[], None]:
    """Set several attributes; return one undo for all of them, which takes the last change back first.

    If one attribute cannot be set, the earlier changes are taken back before the error is raised.

    Args:
        changes: Tuples of the owner, the name and the new value.
    """
    with ExitStack() as undos:
        for owner, name, value in changes:
            undos.callback(patch(owner, name, value))
        return undos.pop_all().close
    raise AssertionError("unreachable")
