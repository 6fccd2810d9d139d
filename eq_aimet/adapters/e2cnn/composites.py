"""e2cnn's modules that take or return fields by label, as calls of plain modules in the traced graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from e2cnn import nn as enn

from eq_aimet.plain import Concat, SelectChannels

__all__ = ["COMPOSITES", "Record"]

# Records the call of a new plain module, with a name, on plain symbolic values; returns its symbolic result.
Record = Callable[..., Any]


def _branch(
    module: enn.BranchingModule, record: Record, x: enn.GeometricTensor
) -> dict[str, enn.GeometricTensor]:
    if module.reshuffle_layer is not None:
        x = module.reshuffle_layer(x)
    branches = {}
    for count, label in enumerate(sorted(module._labels)):
        indices = getattr(module, f"indices_{label}").tolist()
        channels = list(range(*indices)) if module._contiguous[label] else indices
        selected = record(SelectChannels(channels), f"branch_{count}", x.tensor)
        branches[label] = enn.GeometricTensor(selected, module.out_type[label])
    return branches


def _merge(
    module: enn.MergeModule, record: Record, branches: dict[str, enn.GeometricTensor]
) -> enn.GeometricTensor:
    results = [
        getattr(module, f"submodule_{count}")(*[branches[label] for label in labels]).tensor
        for count, labels in enumerate(module._labels)
    ]
    merged = results[0] if len(results) == 1 else record(Concat(), "concat", *results)
    return enn.GeometricTensor(merged, module.out_type)


COMPOSITES: dict[type[torch.nn.Module], Callable[..., Any]] = {
    enn.BranchingModule: _branch,
    enn.MergeModule: _merge,
}
