"""e2cnn's constructors without their two slow steps."""

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
    """Return the constructor of e2cnn's `module` with replacements for the two slow objects that it calls.

    The returned constructor runs e2cnn's code. The namespace of e2cnn's Python module stays unchanged, so a
    direct call of `R2Conv` still runs plain e2cnn.

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
    """Run e2cnn's function once if all labels are equal; e2cnn repeats the whole work for each field."""
    if len(set(labels)) > 1:
        return indexes_from_labels(in_type, labels)
    return {labels[0]: (True, list(range(len(labels))), list(range(in_type.size)))}
