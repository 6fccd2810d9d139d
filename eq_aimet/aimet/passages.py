"""How the scales of channels pass through the modules between two layers.

A passage takes the scale variables of a module's inputs and returns those of its output, or `None` where the
module does not commute with positive scales. Channels that only commute together are joined on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from eq_aimet.symmetry import Add, GroupMaxPool, Mask
from eq_aimet.symmetry.field_modules import ConcatenatedActivation, VectorField
from eq_aimet.symmetry.modules import Multiply, SelectChannels, Subtract
from eq_aimet.symmetry.norm_modules import BlockNorm, NormActivation, NormMaxPool

__all__ = ["Ids", "Variables", "pass_through"]

Ids = NDArray[np.int64]


@dataclass
class Variables:
    """Scale variables, which of them have to be equal, and which have to stay 1.

    Attributes:
        count: How many there are.
        fixed: Those that stay 1, with the reason.
        thresholds: Modules with a bias that has to be scaled along, with the variables of its entries.
    """

    count: int = 0
    left: list[Ids] = field(default_factory=list)
    right: list[Ids] = field(default_factory=list)
    fixed: list[tuple[Ids, str]] = field(default_factory=list)
    thresholds: list[tuple[torch.nn.Module, Ids]] = field(default_factory=list)

    def new(self, channels: int) -> Ids:
        """Return new variables, one per channel."""
        self.count += channels
        return np.arange(self.count - channels, self.count)

    def join(self, first: Ids, second: Ids) -> None:
        """Make variables equal, one by one."""
        self.left.append(first)
        self.right.append(second)

    def join_blocks(self, ids: Ids, blocks: tuple[int, ...]) -> Ids:
        """Make the variables of each block equal; return one per block."""
        firsts = ids[np.cumsum((0, *blocks[:-1]))]
        self.join(ids, np.repeat(firsts, blocks))
        return firsts

    def fix(self, ids: Ids, reason: str) -> None:
        """Make variables stay 1."""
        self.fixed.append((ids, reason))

    def solve(self) -> tuple[Ids, dict[int, str]]:
        """Return the class of each variable, numbered from 1, and the reasons of the classes that stay 1."""
        rows, columns = (np.concatenate([[], *side]).astype(int) for side in (self.left, self.right))
        ones = np.ones(len(rows), dtype=np.int8)
        edges = coo_array((ones, (rows, columns)), shape=(self.count, self.count))
        classes = connected_components(edges, directed=False)[1].astype(np.int64) + 1
        reasons: dict[int, str] = {}
        for ids, reason in self.fixed:
            for number in np.unique(classes[ids]):
                reasons.setdefault(int(number), reason)
        return classes, reasons


def pass_through(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | None:
    """Return the variables of an operation's output, or `None` where no scale passes.

    Args:
        variables: All variables; some are joined here.
        operation: An operation of AIMET's connected graph that is no layer.
        parts: The variables of its inputs; `None` for constants and for what a scale does not reach.
    """
    module = operation.get_module()
    kind = type(module) if module is not None else _FUNCTIONS.get(operation.type.lower())
    passage = _PASSAGES.get(kind) if kind is not None else None
    return None if passage is None else passage(variables, operation, parts)


def _alone(rule: Callable[[Variables, Any, Ids], Ids | None]) -> Callable[..., Ids | None]:
    """Return the passage of a module with one input."""

    def passage(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | None:
        first = parts[0] if parts else None
        return None if first is None else rule(variables, operation, first)

    return passage


def _sum(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | None:
    terms = [part for part in parts if part is not None]
    # A constant term does not scale along, and a broadcast over channels mixes them.
    if len(terms) != len(parts) or len({len(term) for term in terms}) != 1:
        return None
    for term in terms[1:]:
        variables.join(terms[0], term)
    return terms[0]


def _product(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | None:
    # Linear in the one factor that scales; the scales of two factors would multiply.
    factors = [part for part in parts if part is not None]
    channels = operation.outputs[0].shape[1] if operation.outputs else None
    return factors[0] if len(factors) == 1 and len(factors[0]) == channels else None


def _group_pooling(variables: Variables, operation: Any, ids: Ids) -> Ids:
    size = operation.get_module().blocks
    return variables.join_blocks(ids, (size,) * (len(ids) // size) if isinstance(size, int) else size)


def _norm_activation(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    module = operation.get_module()
    if module.function != "relu" or any(module is other for other, _ in variables.thresholds):
        return None
    firsts = variables.join_blocks(ids, module.blocks)
    if module.bias is not None:
        # relu(s·n − s·b) = s·relu(n − b): the bias scales along with the norm.
        variables.thresholds.append((module, firsts))
    return ids


def _vector_field(variables: Variables, operation: Any, ids: Ids) -> Ids:
    rotations = operation.get_module().rotations
    return np.repeat(variables.join_blocks(ids, (rotations,) * (len(ids) // rotations)), 2)


def _concatenated_activation(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    return np.repeat(ids, 2) if operation.get_module().function == "relu" else None


def _selection(variables: Variables, operation: Any, ids: Ids) -> Ids:
    module = operation.get_module()
    return ids[module.start : module.stop] if module.channels is None else ids[module.channels.cpu().numpy()]


def _norm_max_pooling(variables: Variables, operation: Any, ids: Ids) -> Ids:
    variables.join_blocks(ids, operation.get_module().blocks)
    return ids


def _flattening(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    """Follow (batch, channels, …) to (batch, channels · pixels)."""
    before = operation.inputs[0].shape
    after = operation.outputs[0].shape if operation.outputs else None
    if before is None or after is None or len(after) != 2 or len(before) < 2 or before[1] != len(ids):
        return None
    pixels, rest = divmod(int(after[1]), len(ids))
    return None if rest else np.repeat(ids, pixels)


_COMMUTING = (
    torch.nn.ReLU,
    torch.nn.LeakyReLU,
    torch.nn.PReLU,
    torch.nn.Identity,
    torch.nn.Dropout,
    torch.nn.Dropout2d,
    torch.nn.MaxPool2d,
    torch.nn.AvgPool2d,
    torch.nn.AdaptiveAvgPool2d,
    torch.nn.AdaptiveMaxPool2d,
    torch.nn.Upsample,
    torch.nn.ZeroPad2d,
    Mask,
)

_PASSAGES: dict[type, Callable[..., Ids | None]] = {
    **dict.fromkeys(_COMMUTING, _alone(lambda variables, operation, ids: ids)),
    Add: _sum,
    Subtract: _sum,
    Multiply: _product,
    GroupMaxPool: _alone(_group_pooling),
    BlockNorm: _alone(
        lambda variables, operation, ids: variables.join_blocks(ids, operation.get_module().blocks)
    ),
    NormActivation: _alone(_norm_activation),
    NormMaxPool: _alone(_norm_max_pooling),
    VectorField: _alone(_vector_field),
    ConcatenatedActivation: _alone(_concatenated_activation),
    SelectChannels: _alone(_selection),
    torch.nn.Flatten: _alone(_flattening),
}

# What AIMET calls the same operations where they are no modules.
_FUNCTIONS: dict[str, type] = {"add": Add, "flatten": torch.nn.Flatten, "relu": torch.nn.ReLU}
