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

from eq_aimet.plain import (
    Add,
    BlockNorm,
    ConcatenatedActivation,
    GroupMaxPool,
    Largest,
    Mask,
    Mean,
    Multiply,
    NormActivation,
    NormMaxPool,
    QuantizationPoint,
    Scale,
    SelectChannels,
    Smallest,
    Subtract,
    Sum,
    UnevenAveragePool,
    UnevenMaxPool,
    VectorField,
)
from eq_aimet.plugins import layer_blocks

__all__ = ["Ids", "Threshold", "Variables", "pass_through"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Threshold:
    """What a module adds or takes off, and what has to scale along with its input.

    Attributes:
        bias: The tensor itself, which is scaled in place.
        norm: The batch norm whose β it is, if it is one's.
    """

    bias: torch.Tensor
    norm: torch.nn.Module | None = None


@dataclass
class Variables:
    """Scale variables, which of them have to be equal, and which have to stay 1.

    Attributes:
        count: How many there are.
        fixed: Those that stay 1, with the reason.
        thresholds: Biases between layers, with the variables of their entries.
        shared: The ids of tensors that several operations use.
    """

    count: int = 0
    shared: frozenset[int] = frozenset()
    left: list[Ids] = field(default_factory=list)
    right: list[Ids] = field(default_factory=list)
    fixed: list[tuple[Ids, str]] = field(default_factory=list)
    thresholds: list[tuple[Threshold, Ids]] = field(default_factory=list)

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

    def shift(self, bias: torch.Tensor | None, ids: Ids, norm: torch.nn.Module | None = None) -> bool:
        """Let a bias scale along; return whether it can, which it can't for several places at once."""
        if bias is not None and id(bias) not in self.shared:
            self.thresholds.append((Threshold(bias, norm), ids))
        return bias is None or id(bias) not in self.shared

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


def pass_through(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | str | None:
    """Return the variables of an operation's output; a reason, or `None` without one, where no scale passes.

    Args:
        variables: All variables; some are joined here.
        operation: An operation of AIMET's connected graph that is no layer.
        parts: The variables of its inputs; `None` for constants and for what a scale does not reach.
    """
    module = operation.get_module()
    kind = type(module) if module is not None else _FUNCTIONS.get(operation.type.lower())
    passage = _PASSAGES.get(kind) if kind is not None else None
    return None if passage is None else passage(variables, operation, parts)


def _alone(rule: Callable[[Variables, Any, Ids], Ids | str | None]) -> Callable[..., Ids | str | None]:
    """Return the passage of a module with one input."""

    def passage(variables: Variables, operation: Any, parts: list[Ids | None]) -> Ids | str | None:
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


def _norm_activation(variables: Variables, operation: Any, ids: Ids) -> Ids | str | None:
    module = operation.get_module()
    if module.function != "relu":
        return None
    # relu(s·n − s·b) = s·relu(n − b): the bias scales along with the norm.
    firsts = variables.join_blocks(ids, module.blocks)
    return ids if variables.shift(module.bias, firsts) else _SHARED.format(type(module).__name__)


def _batch_norm(variables: Variables, operation: Any, ids: Ids) -> Ids | str | None:
    """Pass a batch norm that could not be folded: γ(s·x − s·μ)/σ + s·β = s·(γ(x − μ)/σ + β)."""
    module = operation.get_module()
    if module.running_mean is None or len(module.running_mean) != len(ids):
        return None
    blocks = layer_blocks(module)
    if blocks is not None:
        variables.join_blocks(ids, blocks.blocks_out)
    shifted = [variables.shift(module.running_mean, ids), variables.shift(module.bias, ids, norm=module)]
    return ids if all(shifted) else _SHARED.format(type(module).__name__)


_SHARED = "the bias of a {} is used in several places, which can't be scaled at once"


def _vector_field(variables: Variables, operation: Any, ids: Ids) -> Ids:
    rotations = operation.get_module().rotations
    return np.repeat(variables.join_blocks(ids, (rotations,) * (len(ids) // rotations)), 2)


def _concatenated_activation(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    return np.repeat(ids, 2) if operation.get_module().function == "relu" else None


def _pixel_shuffle(variables: Variables, operation: Any, ids: Ids) -> Ids:
    merged = operation.get_module().upscale_factor ** 2
    return variables.join_blocks(ids, (merged,) * (len(ids) // merged))


def _selection(variables: Variables, operation: Any, ids: Ids) -> Ids:
    module = operation.get_module()
    return ids[module.start : module.stop] if module.channels is None else ids[module.channels.cpu().numpy()]


def _norm_max_pooling(variables: Variables, operation: Any, ids: Ids) -> Ids:
    variables.join_blocks(ids, operation.get_module().blocks)
    return ids


def _flattening(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    """Follow (batch, channels, …) to (batch, channels · pixels), or to another arrangement of the pixels."""
    before, after = _shapes(operation)
    if len(before) < 2 or len(after) < 2 or before[0] != after[0] or before[1] != len(ids):
        return None
    if after[1] == before[1]:
        return ids
    pixels, rest = divmod(int(after[1]), len(ids))
    return None if rest or len(after) != 2 else np.repeat(ids, pixels)


def _mean(variables: Variables, operation: Any, ids: Ids) -> Ids | str | None:
    """Pass a mean, sum or maximum over the pixels, of (batch, channels, …)."""
    before, after = _shapes(operation)
    if len(before) < 3 or len(after) < 2 or before[1] != len(ids) or after[1] != len(ids):
        return None
    # AIMET's graph does not say over which dimensions.
    return _UNCLEAR.format(operation.type) if len(ids) in before[2:] else ids


def _reduction(variables: Variables, operation: Any, ids: Ids) -> Ids | None:
    """Pass a reduction over the pixels; one over the channels mixes them."""
    module = operation.get_module()
    rank = len(_shapes(operation)[0])
    return None if rank == 0 or {dim % rank for dim in module.dims} & {0, 1} else ids


_UNCLEAR = (
    "the operation {!r} may be over channels or pixels, which are as many; "
    "`torch.nn.AdaptiveAvgPool2d` would be clear"
)


def _shapes(operation: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the first input and of the output; empty where AIMET does not know them."""
    products = (operation.inputs[:1], operation.outputs[:1])
    first, second = (tuple(part[0].shape) if part and part[0].shape else () for part in products)
    return first, second


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
    torch.nn.ReplicationPad2d,
    torch.nn.ReflectionPad2d,
    Mask,
    Scale,
    QuantizationPoint,
    UnevenAveragePool,
    UnevenMaxPool,
)

_PASSAGES: dict[Any, Callable[..., Ids | str | None]] = {
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
    torch.nn.BatchNorm1d: _alone(_batch_norm),
    torch.nn.BatchNorm2d: _alone(_batch_norm),
    VectorField: _alone(_vector_field),
    ConcatenatedActivation: _alone(_concatenated_activation),
    SelectChannels: _alone(_selection),
    torch.nn.PixelShuffle: _alone(_pixel_shuffle),
    torch.nn.Flatten: _alone(_flattening),
    "mean": _alone(_mean),
    **dict.fromkeys((Mean, Sum, Largest, Smallest), _alone(_reduction)),
}

# What AIMET calls operations that are no modules.
_FUNCTIONS: dict[str, Any] = {
    "add": Add,
    "mul": Multiply,
    "flatten": torch.nn.Flatten,
    "reshape": torch.nn.Flatten,
    "view": torch.nn.Flatten,
    "relu": torch.nn.ReLU,
    "leaky_relu": torch.nn.LeakyReLU,
    "dropout": torch.nn.Dropout,
    "max_pool2d": torch.nn.MaxPool2d,
    "avg_pool2d": torch.nn.AvgPool2d,
    "adaptive_avg_pool2d": torch.nn.AdaptiveAvgPool2d,
    "adaptive_max_pool2d": torch.nn.AdaptiveMaxPool2d,
    "mean": "mean",
    "sum": "mean",
    "amax": "mean",
}
