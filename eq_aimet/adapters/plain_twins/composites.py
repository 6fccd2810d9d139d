"""Modules that take or return fields by label, as calls of plain modules in the traced graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eq_aimet.plain import Concat, SelectChannels

__all__ = ["Record", "branch", "merge"]

# Records the call of a new plain module, with a name, on plain symbolic values; returns its symbolic result.
Record = Callable[..., Any]


def branch(module: Any, record: Record, x: Any) -> dict[str, Any]:
    """Replace the `forward` of a `BranchingModule`: return the fields of each label."""
    if module.reshuffle_layer is not None:
        x = module.reshuffle_layer(x)
    branches = {}
    for count, label in enumerate(sorted(module._labels)):
        indices = getattr(module, f"indices_{label}").tolist()
        channels = list(range(*indices)) if module._contiguous[label] else indices
        selected = record(SelectChannels(channels), f"branch_{count}", x.tensor)
        branches[label] = type(x)(selected, module.out_type[label])
    return branches


def merge(module: Any, record: Record, branches: dict[str, Any]) -> Any:
    """Replace the `forward` of a `MergeModule`: concatenate the results of its modules."""
    results = [
        getattr(module, f"submodule_{count}")(*[branches[label] for label in labels])
        for count, labels in enumerate(module._labels)
    ]
    tensors = [result.tensor for result in results]
    merged = tensors[0] if len(tensors) == 1 else record(Concat(), "concat", *tensors)
    return type(results[0])(merged, module.out_type)
