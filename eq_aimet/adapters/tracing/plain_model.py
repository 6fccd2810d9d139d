"""From a network of equivariant and torch modules to a plain model.

The network's own `forward` runs once on symbolic values. Each value carries its result on the dummy input.
So the shapes are known, and code that reads shapes runs as usual. The tracer refuses only decisions that
depend on the data or on the batch size.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from eq_aimet.adapters.libraries import library_of
from eq_aimet.adapters.tracing.functions import operations_to_modules
from eq_aimet.adapters.tracing.graphs import TracedGraph, in_place_to_plain
from eq_aimet.adapters.tracing.inputs import BoundInputs
from eq_aimet.adapters.tracing.label_norms import merge_label_norms
from eq_aimet.adapters.tracing.precision_casts import follow_precision
from eq_aimet.adapters.tracing.refusals import tracing_error
from eq_aimet.adapters.tracing.surroundings import ready_to_trace
from eq_aimet.adapters.tracing.tracer import ModuleConverter, Tracer
from eq_aimet.errors import EqAimetError

__all__ = ["trace_plain_model"]


def trace_plain_model(
    model: torch.nn.Module, inputs: BoundInputs, convert: ModuleConverter
) -> fx.GraphModule:
    """Return a plain model that computes the same outputs as `model` in eval mode.

    Args:
        model: The network, built from equivariant modules and ordinary torch modules.
        inputs: Dummy inputs of its `forward`: tensors, typed tensors, or containers of them.
        convert: Returns the plain twin of an equivariant module, or `None` for a module to trace into.

    Raises:
        ExportError: If the network can't be traced, or has a module without a plain equivalent.
        InvalidArgumentError: If `model` does not run on `inputs`.
    """
    root = _Holder(model) if _is_converted_whole(model, convert) else model
    tracer = Tracer(inputs, convert)
    try:
        with ready_to_trace(root, tracer):
            graph = tracer.trace(root)
            targets = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
            attributes = {target: _copy(operator.attrgetter(target)(root)) for target in targets}
    except EqAimetError:
        raise
    except Exception as error:
        raise tracing_error(error, model, inputs) from error
    traced = TracedGraph(graph, tracer.examples, tracer.scopes, tracer.in_place)
    in_place_to_plain(traced)
    tracer.known.undo_changes()
    _drop_unused(graph)
    attributes.update(follow_precision(graph, tracer.examples, _precision(model)))
    operations_to_modules(traced, attributes, tracer.plain_modules)
    merge_label_norms(traced, tracer.plain_modules)
    _drop_unused(graph)
    # A copy holds no reference to this tracer; otherwise unpickling the model would need the tracer.
    plain_graph = fx.Graph()
    plain_graph.output(plain_graph.graph_copy(graph, {}))
    plain_graph.lint()
    used = {str(node.target) for node in plain_graph.nodes if node.op == "get_attr"}
    modules = {**tracer.plain_modules, **{name: attributes[name] for name in used}}
    return fx.GraphModule(modules, plain_graph, type(model).__name__).eval()


def _copy(value: Any) -> Any:
    """Return a copy of a parameter, a buffer or a constant, which shares no storage with it."""
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(value.detach().clone(), value.requires_grad)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _drop_unused(graph: fx.Graph) -> None:
    """Remove unused operations and attributes in place; layers stay, even unused layers."""
    for node in reversed(graph.nodes):
        if (
            node.op in ("call_function", "call_method", "get_attr")
            and not node.users
            and not node.is_impure()
        ):
            graph.erase_node(node)


def _precision(model: torch.nn.Module) -> torch.dtype | None:
    return next((value.dtype for value in model.parameters() if value.is_floating_point()), None)


def _is_converted_whole(model: torch.nn.Module, convert: ModuleConverter) -> bool:
    library = library_of(model)
    return library is not None and (type(model) in library.composites or convert(model) is not None)


class _Holder(torch.nn.Module):
    """Calls one module, so that the tracer converts it; the tracer converts only called modules."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's output."""
        return self.module(*args, **kwargs)
