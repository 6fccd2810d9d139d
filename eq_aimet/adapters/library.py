"""The description of one library of equivariant networks, which the shared code of the adapters reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Composite", "Converter", "GroupElement", "Library"]

# Returns the plain twin of one equivariant module.
Converter = Callable[[Any], torch.nn.Module]

# Replaces the `forward` of a module that handles fields by label: it takes the module, a function that
# records the call of a new plain module by name, and the arguments of `forward`.
Composite = Callable[..., Any]


@dataclass(frozen=True)
class GroupElement:
    """One element of a space's group.

    Attributes:
        value: The element in the form that the library's representations accept.
        is_reflection: Whether the element mirrors the plane.
    """

    value: Any
    is_reflection: bool


@dataclass(frozen=True)
class Library:
    """The properties in which the libraries of equivariant networks differ.

    A new library needs a package in `eq_aimet.adapters` that defines one `LIBRARY`, and a line in
    `eq_aimet.adapters.libraries`.

    Attributes:
        package: The name of the library's package, for example "e2cnn".
        module_class: The base class of the library's modules, which have an `in_type` and an `out_type`.
        tensor_class: The class of typed tensors. It is called with a tensor and its type, and stores them in
            the attributes `tensor` and `type`.
        type_class: The class of field types. A type has a `gspace`, a `size` and `representations`; a
            representation has a `size` and gives the matrix of a group element when it is called with it.
        converters: For each class of modules, the function that returns the plain twin of such a module.
        traced_through: Classes of modules whose `forward` only passes fields on to other modules.
        composites: For each class of modules that handles fields by label, the replacement of its `forward`.
        group_elements: Returns the elements of a space's group without the identity. For a continuous group
            it returns one element of each kind.
        move_image: Moves an image of shape (height, width) by an element of a space's group, and returns the
            moved image.
    """

    package: str
    module_class: type[torch.nn.Module]
    tensor_class: type
    type_class: type
    converters: Mapping[type, Converter]
    traced_through: frozenset[type]
    composites: Mapping[type, Composite]
    group_elements: Callable[[Any], Iterable[GroupElement]]
    move_image: Callable[[Any, GroupElement, np.ndarray], np.ndarray]

    def owns(self, cls: type) -> bool:
        """Return whether the library itself, and not a user of it, defines `cls`."""
        return cls.__module__.partition(".")[0] == self.package
