"""The results of a traced graph's nodes on the dummy input, and on a batch with one more image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.tracing.graphs import changes_in_place
from eq_aimet.symmetry.calling import map_tensors, tensors_in

__all__ = ["Examples", "one_more"]


def one_more(inputs: Any) -> Any:
    """Return the inputs with one more image in the batch.

    The batch size is the first size of the first input. A tensor with another first size has no batch
    dimension, and stays unchanged.
    """
    batched = [tensor for tensor in tensors_in(inputs) if tensor.dim() > 0]
    size = len(batched[0]) if batched else 0

    def grow(tensor: torch.Tensor) -> torch.Tensor:
        has_batch = tensor.dim() > 0 and len(tensor) == size
        return torch.cat((tensor, tensor[-1:])) if has_batch else tensor.clone()

    return map_tensors(grow, inputs)


class Examples:
    """The results of each node on two batches, and whether a node depends on the inputs.

    If a value is the same for both batch sizes, the value does not depend on the batch size.
    """

    def __init__(self) -> None:
        self.first: dict[fx.Node, Any] = {}
        self._second: dict[fx.Node, Any] = {}
        self.variable: set[fx.Node] = set()
        self._unchanged: dict[fx.Node, torch.Tensor] = {}

    def add(self, node: fx.Node, first: Any, second: Any, *, is_input: bool = False) -> None:
        """Store the results of a node on both batches."""
        self.first[node], self._second[node] = first, second
        if is_input or any(source in self.variable for source in node.all_input_nodes):
            self.variable.add(node)

    def compute(self, node: fx.Node, operation: Callable[..., Any]) -> None:
        """Compute and store the results of a node, which calls `operation` on its arguments."""
        if changes_in_place(node):
            self._keep_constants(node)
        first = self._call(node, operation, self.first)
        try:
            second = self._call(node, operation, self._second)
        except Exception:  # noqa: BLE001 - `forward` contains a fixed batch size
            second = first
        self.add(node, first, second)

    def _keep_constants(self, node: fx.Node) -> None:
        """Keep the value that constants have before `node` changes them in place."""
        storage = _storage(self.first.get(node.args[0]))  # type: ignore[arg-type]
        for other, value in self.first.items():
            if storage and other not in self.variable and _storage(value) == storage:
                self._unchanged.setdefault(other, value.clone())

    def undo_changes(self) -> None:
        """Give constants the values that they had before operations in place changed them."""
        self.first.update(self._unchanged)

    def _call(self, node: fx.Node, operation: Callable[..., Any], values: dict[fx.Node, Any]) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        return operation(*args, **kwargs)

    def pair(self, value: Any) -> tuple[Any, Any]:
        """Return the results of a symbolic value, or the value itself, on both batches."""
        if isinstance(value, fx.Proxy):
            return self.first[value.node], self._second[value.node]
        return value, value

    def both(self, node: fx.Node) -> tuple[Any, Any]:
        """Return the results of a node on both batches."""
        return self.first[node], self._second[node]


def _storage(value: Any) -> int:
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else 0
