"""The result of one forward pass of a model: its steps, and the scale variables of its layers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Variables

__all__ = ["Step", "Trace", "Value"]


@dataclass(frozen=True, eq=False)
class Value:
    """An activation: the scale variables of its entries, or the reason why its scale stays 1."""

    ids: torch.Tensor | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Step:
    """One operation, or one run of a module that is looked at as a whole.

    Attributes:
        module: The module that is looked at as a whole, or `None` for an operation.
        inside: The innermost module that runs.
        read: The activations that it reads.
        written: The activations that it returns.
    """

    module: torch.nn.Module | None
    inside: torch.nn.Module | None
    read: tuple[Value, ...]
    written: tuple[Value, ...]

    @property
    def only_passes(self) -> bool:
        """Whether one activation comes out with the scales with which it came in."""
        if len(self.read) != 1 or len(self.written) != 1:
            return False
        return self.read[0].ids is self.written[0].ids is not None


@dataclass
class Trace:
    """The facts about a model's scales from one forward pass.

    Attributes:
        names: The dotted name of each module.
        variables: All scale variables.
        steps: The steps in the order in which they ran.
        layers: For each run of a layer: the layer, and the variables of its input and output channels.
        outputs: The activations that the model returns.
        runs: The number of runs of each module.
        uses: The number of operations that read each parameter or buffer, by the id of the tensor.
        output: The output of the model.
    """

    names: dict[torch.nn.Module, str]
    variables: Variables = field(default_factory=Variables)
    steps: list[Step] = field(default_factory=list)
    layers: list[tuple[Any, torch.Tensor, torch.Tensor]] = field(default_factory=list)
    outputs: set[Value] = field(default_factory=set)
    runs: Counter[torch.nn.Module] = field(default_factory=Counter)
    uses: Counter[int] = field(default_factory=Counter)
    output: Any = None

    @cached_property
    def readers(self) -> dict[Value, list[Step]]:
        """Return the steps that read each activation."""
        found: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in dict.fromkeys(step.read):
                found.setdefault(value, []).append(step)
        return found
