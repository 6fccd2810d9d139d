"""e2cnn's constructors without what makes them slow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from e2cnn.nn import FieldType
from e2cnn.nn.modules.utils import indexes_from_labels

from eq_aimet.adapters.e2cnn.expansion import LazyBlocksBasisExpansion
from eq_aimet.adapters.mending.rebinding import rebind

__all__ = ["fast_constructor"]


@functools.cache
def fast_constructor(module: type) -> Callable[..., None]:
    """Return the constructor of e2cnn's `module` with our names for the two slow things that it calls.

    The function's code stays e2cnn's, and so does its module's namespace: whoever calls `R2Conv` itself
    gets plain e2cnn.

    >>> from e2cnn import nn
    >>> fast_constructor(nn.R2Conv).__code__ is nn.R2Conv.__init__.__code__
    True
    """
    return rebind(
        module.__init__,  # type: ignore[misc]
        BlocksBasisExpansion=LazyBlocksBasisExpansion,
        indexes_from_labels=_indexes_from_labels,
    )


def _indexes_from_labels(
    in_type: FieldType, labels: list[Any]
) -> dict[Any, tuple[bool, list[int], list[int]]]:
    """e2cnn's function, which repeats the whole work for each field, run once where all labels are equal."""
    if len(set(labels)) > 1:
        return indexes_from_labels(in_type, labels)
    return {labels[0]: (True, list(range(len(labels))), list(range(in_type.size)))}
