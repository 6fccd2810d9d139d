"""Running a library's own code with replaced global names, without changing the library itself."""

from __future__ import annotations

from types import FunctionType, ModuleType
from typing import Any

__all__ = ["Namespace", "rebind"]


class Namespace:
    """A stand-in for a module: it replaces some names and takes all other names from the original.

    >>> import math
    >>> shim = Namespace(math, tau=6.0)
    >>> shim.tau, shim.floor(2.5)
    (6.0, 2)
    """

    def __init__(self, original: ModuleType | Namespace, **replaced: Any) -> None:
        self._original = original
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)


def rebind(function: Any, **names: Any) -> Any:
    """Return a function of the same code that finds `names` where the original finds its module's globals.

    Args:
        function: A plain function. The function and its module stay unchanged.
        **names: The values that replace the global names of the function.

    >>> def area(radius):
    ...     return PI * radius**2
    >>> rebind(area, PI=3)(2)
    12
    """
    rebound = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    rebound.__kwdefaults__ = function.__kwdefaults__
    rebound.__qualname__ = function.__qualname__
    rebound.__doc__ = function.__doc__
    return rebound
