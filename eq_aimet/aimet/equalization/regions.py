"""Regions: where a positive scale can move from the layers that write some channels to those that read them.

AIMET's CLS sets are two or three layers in a row. A region is more general: several sources and several
sinks, with any operations between them that commute with a positive scale (ReLU, pooling, masks, residual
sums, group pooling, flattening …). Channels that must share a scale are joined: the channels of a block, the
channels that a sum adds, and the channels that group pooling compares. The remaining scales are independent.

Equalization over such regions is brevitas' idea; here blocks of channels take the place of channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eq_aimet.aimet.equalization.scale_tracing.scale_trace import Trace
from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Ids

__all__ = ["Joint", "Joints", "find_joints"]

_FIXED = 0  # the number of the scale that stays 1


@dataclass(frozen=True, eq=False)
class Joint:
    """One side of a layer: its output channels in a source, its input channels in a sink.

    Attributes:
        layer: A convolution or linear layer; for a threshold, a `Threshold`.
        scales: The number of the scale of each channel or entry; 0 stands for the scale that stays 1.
        reason: Why some of the channels can't be scaled, or an empty string.
    """

    layer: Any
    scales: Ids
    reason: str


@dataclass(frozen=True)
class Joints:
    """All places that scales belong to: the two sides of each layer, and what is added between layers."""

    sources: tuple[Joint, ...] = ()
    sinks: tuple[Joint, ...] = ()
    thresholds: tuple[Joint, ...] = ()


def find_joints(
    trace: Trace,
    held: Iterable[torch.nn.Module],
    untouchable: Mapping[torch.nn.Module, str],
    folded: Iterable[torch.nn.Module] = (),
) -> Joints:
    """Return all places of a model that scales belong to, with the scale that each channel takes.

    Args:
        trace: A forward pass of the model.
        held: Layers whose output channels keep their scale, because these layers were scaled already.
        untouchable: Layers whose weights must not change at all, each with the reason.
        folded: Batch norms that were folded since the forward pass.
    """
    variables, held, gone = trace.variables, set(held), set(folded)
    for layer, read, written in trace.layers:
        if layer in untouchable:
            variables.fix(read, untouchable[layer])
            variables.fix(written, untouchable[layer])
        elif layer in held:
            variables.fix(written, "it was scaled as part of a CLS set")
    classes, reasons = variables.solve()
    stopped = np.array(list(reasons))

    def joint(layer: Any, ids: Ids) -> Joint:
        own = classes[ids]
        fixed = np.isin(own, stopped)
        reason = reasons[int(own[fixed][0])] if fixed.any() else ""
        return Joint(layer, np.where(fixed, _FIXED, own), reason)

    layers = [side for side in trace.layers if side[0] not in untouchable]
    thresholds = [pair for pair in variables.thresholds if pair[0].module not in gone]
    return Joints(
        tuple(joint(layer, written.numpy()) for layer, _, written in layers),
        tuple(joint(layer, read.numpy()) for layer, read, _ in layers),
        tuple(joint(threshold, ids) for threshold, ids in thresholds),
    )
