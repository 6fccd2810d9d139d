"""Operations of a traced graph replaced by modules."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import fx

from eq_aimet import plain
from eq_aimet.adapters.tracing.functions.activations import ACTIVATIONS
from eq_aimet.adapters.tracing.functions.arithmetic import ARITHMETIC
from eq_aimet.adapters.tracing.functions.constants import (
    drop_unused_constants,
    fold_constants,
    is_constant_node,
)
from eq_aimet.adapters.tracing.functions.layers import LAYERS
from eq_aimet.adapters.tracing.functions.movements import is_movement
from eq_aimet.adapters.tracing.functions.operands import Activation, Converter
from eq_aimet.adapters.tracing.functions.pooling import POOLING, adaptive_pool
from eq_aimet.adapters.tracing.functions.resizing import RESIZING, upsampling
from eq_aimet.adapters.tracing.graphs import TracedGraph

__all__ = ["CONVERTERS", "operations_to_modules"]

# The keys are functions, or names of tensor methods. The values are the stem of the module's name, and its
# converter.
CONVERTERS: dict[Any, tuple[str, Converter]] = {
    **ARITHMETIC,
    **ACTIVATIONS,
    **POOLING,
    **RESIZING,
    **LAYERS,
}


def operations_to_modules(
    traced: TracedGraph, attributes: dict[str, Any], modules: dict[str, torch.nn.Module]
) -> None:
    """Replace the operations of a graph by modules, which AIMET quantizes; works in place.

    An operation that has no module keeps its place, and a `QuantizationPoint` quantizes its output. An
    operation that only moves numbers keeps its place too.

    Args:
        traced: The graph, without in-place operations.
        attributes: The values of the graph's constants by name; new constants are added, and constants that
            modules have taken over are removed.
        modules: The modules of the graph by name; modules are added.
    """
    rewriter = _Rewriter(traced, attributes, modules)
    _take_values_of_maxima(traced)
    fold_constants(traced, attributes)
    for node in list(traced.graph.nodes):
        rewriter.convert(node)
    for node in list(traced.graph.nodes):
        rewriter.quantize(node)
    drop_unused_constants(traced, attributes)


class _Rewriter:
    """Puts modules into a traced graph."""

    def __init__(
        self, traced: TracedGraph, attributes: dict[str, Any], modules: dict[str, torch.nn.Module]
    ) -> None:
        self.traced, self.attributes, self.modules = traced, attributes, modules
        self.examples = traced.examples
        self.vectors: dict[str, torch.nn.Parameter] = {}

    def convert(self, node: fx.Node) -> None:
        """Replace an operation by its module, if it has one."""
        if node.op == "call_module":
            self._fit_to_grid(node)
        if node.op not in ("call_function", "call_method") or node.target not in CONVERTERS:
            return
        stem, converter = CONVERTERS[node.target]
        module = self._converted(node, converter)
        if module is not None:
            inputs = [source for source in _nodes_in_order(node) if self._is_activation(source)]
            self._replace(node, stem, module, tuple(inputs))

    def quantize(self, node: fx.Node) -> None:
        """Put a quantization point behind an operation that has no module.

        If such an operation reads the model's input, the input gets a quantization point too.
        """
        if not self._is_floating(node):
            return
        if node.op == "placeholder":
            readers = [user for user in node.users if user.op in ("call_function", "call_method")]
            is_needed = any(self._is_floating(reader) for reader in readers)
        else:
            is_needed = node.op in ("call_function", "call_method") and not is_movement(node)
        if is_needed:
            with self.traced.graph.inserting_after(node):
                self._insert(node, "quantization_point", plain.QuantizationPoint(), (node,))

    def _converted(self, node: fx.Node, converter: Converter) -> torch.nn.Module | None:
        sources = node.all_input_nodes
        if any(self._is_unknown_number(source) for source in sources):
            return None
        if not any(self._is_activation(source) for source in sources):
            return None
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._operand)
        try:
            bound = inspect.signature(converter).bind(*args, **kwargs)
        except TypeError:  # arguments that the module does not accept, such as `out=`
            return None
        return converter(*bound.args, **bound.kwargs)

    def _operand(self, node: fx.Node) -> Any:
        if is_constant_node(node, self.attributes):
            return self._constant(str(node.target))
        value = self.examples[node]
        return Activation(value) if isinstance(value, torch.Tensor) else value

    def _constant(self, name: str) -> Any:
        value = self.attributes[name]
        if not isinstance(value, torch.nn.Parameter) or value.dim() > 0:
            return value
        # AIMET quantizes no parameter without dimensions. All modules that use such a parameter share one
        # reshaped version with one dimension.
        if name not in self.vectors:
            self.vectors[name] = torch.nn.Parameter(value.detach().reshape(1), value.requires_grad)
        return self.vectors[name]

    def _is_activation(self, node: fx.Node) -> bool:
        is_tensor = isinstance(self.examples.get(node), torch.Tensor)
        return is_tensor and not is_constant_node(node, self.attributes)

    def _is_unknown_number(self, node: fx.Node) -> bool:
        """Return whether `node` is a number; such a number depends on the batch size."""
        return isinstance(self.examples.get(node), (int, float))

    def _is_floating(self, node: fx.Node) -> bool:
        value = self.examples.get(node)
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    def _fit_to_grid(self, node: fx.Node) -> None:
        """Replace a pooling or upsampling that runs on the device by another module on this grid."""
        module = self.modules.get(str(node.target))
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or getattr(module, "return_indices", False):
            return
        fitting = module
        if isinstance(module, (torch.nn.AdaptiveAvgPool2d, torch.nn.AdaptiveMaxPool2d)):
            fitting = adaptive_pool(module, self.examples[source])
        elif isinstance(module, torch.nn.Upsample):
            fitting = upsampling(module, self.examples[source])
        if fitting is not None and fitting is not module:
            self._replace(node, str(node.target).rpartition(".")[2], fitting, (source,))

    def _replace(
        self, node: fx.Node, stem: str, module: torch.nn.Module, inputs: tuple[fx.Node, ...]
    ) -> None:
        with self.traced.graph.inserting_before(node):
            self._insert(node, stem, module, inputs)
        self.traced.graph.erase_node(node)

    def _insert(self, node: fx.Node, stem: str, module: torch.nn.Module, inputs: tuple[fx.Node, ...]) -> None:
        """Call `module` on `inputs`, and let the users of `node` read the module's output."""
        scope = self.traced.scopes.get(node, "")
        path = f"{scope}.{stem}" if scope else stem
        names = (path, *(f"{path}_{count}" for count in range(1, 10_000)))
        taken = {*self.modules, *self.attributes}
        name = next(name for name in names if name not in taken)
        self.modules[name] = module.eval()
        inserted = self.traced.graph.call_module(name, inputs)
        self.examples[inserted] = self.examples[node]
        self.traced.scopes[inserted] = scope
        node.replace_all_uses_with(inserted, delete_user_cb=lambda user: user is not inserted)


def _nodes_in_order(node: fx.Node) -> list[fx.Node]:
    """Return the nodes among the arguments in order; a node that occurs twice is returned twice."""
    found: list[fx.Node] = []

    def note(source: fx.Node) -> fx.Node:
        found.append(source)
        return source

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def _take_values_of_maxima(traced: TracedGraph) -> None:
    """Write `x.max(dim)[0]` and `x.max(dim).values` as `x.amax(dim)`, in place; the same for minima."""
    plain_methods = {torch.max: "amax", "max": "amax", torch.min: "amin", "min": "amin"}
    for node in list(traced.graph.nodes):
        method = plain_methods.get(node.target) if node.op in ("call_function", "call_method") else None
        if method is None or not isinstance(traced.examples.get(node), tuple):
            continue
        reads = ((operator.getitem, (node, 0)), (getattr, (node, "values")))
        if not all((user.target, user.args) in reads for user in node.users):
            continue
        with traced.graph.inserting_before(node):
            largest = traced.graph.call_method(method, node.args, node.kwargs)
        traced.examples[largest] = traced.examples[node][0]
        traced.scopes[largest] = traced.scopes[node]
        for user in list(node.users):
            user.replace_all_uses_with(largest)
            traced.graph.erase_node(user)
        traced.graph.erase_node(node)
