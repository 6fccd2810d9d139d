"""One call of a torch operation, as the rules of `operation_rules` see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.utils._pytree import tree_leaves

from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Variables

__all__ = ["INVARIANT", "READS_NO_VALUES", "Call", "Invariant", "Result"]


class Invariant:
    """Marks an output that a positive scale of the inputs does not change, such as `x > 0`."""


INVARIANT = Invariant()

# Operations that look at the shape or the type of a tensor only.
READS_NO_VALUES = frozenset(
    f"{kind}_like" for kind in ("empty", "zeros", "ones", "full", "rand", "randn")
) | {"new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided", "sym_size", "is_same_size"}

# The variables of one output or of several, or the reason why no scale passes.
Result = torch.Tensor | list[torch.Tensor] | Invariant | str


class _Tracer(Protocol):
    variables: Variables

    def ids_of(self, tensor: Any) -> torch.Tensor | None:
        """Return the scale variables of an activation, or `None` for anything else."""

    def keeps_scale(self, tensor: Any) -> str:
        """Return why the scale of an activation stays 1, or an empty string for a constant."""

    def scale_along(self, constant: torch.Tensor, ids: torch.Tensor) -> str:
        """Let a constant scale along; return why it cannot, or an empty string."""


@dataclass(frozen=True)
class Call:
    """One call of an operation.

    Attributes:
        tracer: The tracer, which knows the scale variables of tensors.
        function: The operation.
        name: Its name without `aten::` and without the mark of in-place operations.
        args: The positional arguments.
        kwargs: The keyword arguments.
        output: The result of the operation.
    """

    tracer: _Tracer
    function: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def variables(self) -> Variables:
        """All scale variables."""
        return self.tracer.variables

    def ids(self, position: int) -> torch.Tensor | None:
        """Return the scale variables of an argument, or `None` if it has none."""
        return self.tracer.ids_of(self.args[position]) if position < len(self.args) else None

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that is given by its position or by its name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def first_alone(self) -> torch.Tensor | None:
        """Return the variables of the first argument, or `None` if another argument has some, too."""
        own = self.ids(0)
        others = tree_leaves((self.args[1:], self.kwargs))
        return None if any(self.tracer.ids_of(leaf) is not None for leaf in others) else own
