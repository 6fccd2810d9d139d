"""Deep copies of models that hold computed tensors, which `copy.deepcopy` refuses."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, TypeVar

import torch

__all__ = ["copy_module"]

Module = TypeVar("Module", bound=torch.nn.Module)


def copy_module(module: Module) -> Module:
    """Return a deep copy of a module.

    e2cnn and escnn keep the expanded filters of a network in eval mode as buffers that remember how they were
    computed, and `copy.deepcopy` refuses such tensors. The copy keeps only the values.

    Example:
        >>> scale = torch.nn.Linear(1, 1)
        >>> scale.register_buffer("doubled", 2 * scale.weight)
        >>> copy_module(scale).doubled.equal(2 * scale.weight)
        True
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in chain(vars(part).values(), part._buffers.values()):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(module, memo)
