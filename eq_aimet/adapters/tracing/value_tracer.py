"""The part of the tracer that handles values: inputs, attributes, operations, and their results."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx

from eq_aimet.adapters.libraries import is_typed_tensor
from eq_aimet.adapters.tracing.examples import Examples, one_more
from eq_aimet.adapters.tracing.inputs import BoundInputs, with_types_of, without_types
from eq_aimet.adapters.tracing.precision_casts import check_precision
from eq_aimet.adapters.tracing.refusals import (
    data_dependent,
    fixed_batch_size,
)
from eq_aimet.adapters.tracing.symbols import NumberSymbol, Shape, TensorSymbol
from eq_aimet.symmetry.calling import map_tensors, tensors_in

__all__ = ["ValueTracer"]

# The attributes that depend on a tensor's form and not on its values.
_FORM = frozenset(
    [
        "size",
        "dim",
        "ndimension",
        "numel",
        "nelement",
        "stride",
        "element_size",
        "get_device",
        "storage_offset",
        "is_contiguous",
        "is_floating_point",
        "is_complex",
        "is_signed",
        "type",
        "result_type",
    ]
)


class ValueTracer(fx.Tracer):
    """Records operations on symbolic values, and computes them on the dummy input.

    Args:
        inputs: The dummy inputs of each parameter of `forward`.
    """

    def __init__(self, inputs: BoundInputs) -> None:
        super().__init__()
        # Otherwise torch.fx would record functions of `math`, and the export would fix the batch size.
        self._autowrap_search, self._autowrap_function_ids = [], set()
        self.inputs = inputs
        self.known = Examples()
        self.plain_modules: dict[str, torch.nn.Module] = {}
        self.scopes: dict[fx.Node, str] = {}
        self._is_computing = False
        self._thread = threading.get_ident()
        # The paths of parameters and buffers, and the symbols of those that `forward` has asked for. The
        # keys are the identities of the tensors, because libraries hash a module by its contents.
        self.tensor_paths: dict[int, str] = {}
        self.attribute_symbols: dict[str, Any] = {}

    @property
    def examples(self) -> dict[fx.Node, Any]:
        """Each node's result on the dummy input."""
        return self.known.first

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Return a call of the model, and its arguments: a symbol for each dummy input."""
        self._learn_paths(self.root, "")
        grown = one_more(without_types(self.inputs.values))
        symbols = {
            name: self._input_symbol(name, value, grown[name]) for name, value in self.inputs.values.items()
        }
        args, kwargs = self.inputs.arguments(symbols)
        # The model is called, and not its `forward`, so that its own hooks run.
        return lambda root: root(*args, **kwargs), [self.root]

    def _input_symbol(self, name: str, value: Any, grown: Any) -> Any:
        node = self.create_node("placeholder", name, (), {})
        first = map_tensors(lambda tensor: tensor.detach().clone(), without_types(value))
        self.known.add(node, first, grown, is_input=True)
        self.scopes[node] = ""
        return with_types_of(self.symbol(node), value)

    def create_arg(self, a: Any) -> Any:
        """Return the graph's representation of a value; a typed tensor is represented by its tensor."""
        if isinstance(a, fx.Proxy):
            return a.node
        if is_typed_tensor(a):
            return self.create_arg(a.tensor)
        if isinstance(a, torch.Tensor):
            return self.create_node("get_attr", self._path_of_tensor(a), (), {})
        if type(a) is Shape:
            a = tuple(a)
        if type(a) is type(torch.FloatTensor):
            a = a.dtype
        return super().create_arg(a.item() if isinstance(a, np.generic) else a)

    def _learn_paths(self, module: torch.nn.Module, prefix: str) -> None:
        for named in (module.named_parameters(prefix), module.named_buffers(prefix)):
            for path, tensor in named:
                self.tensor_paths.setdefault(id(tensor), path)

    def _path_of_tensor(self, tensor: torch.Tensor) -> str:
        """Return the path of a parameter or buffer; another tensor becomes a constant of the model."""
        if id(tensor) not in self.tensor_paths:
            path = self.get_fresh_qualname("_tensor_constant")
            setattr(self.root, path, tensor)
            self.tensor_paths[id(tensor)] = path
        return self.tensor_paths[id(tensor)]

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a node; a parameter, buffer or constant gets its value at once."""
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":  # a parameter, buffer or constant
            with self._paused():
                value = operator.attrgetter(target)(self.root)
            if isinstance(value, torch.Tensor):
                value = value.detach().clone()  # an in-place operation must not change the source
            self.known.add(node, value, value)
        return node

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        """Record a node, compute it on the dummy input, and return its value for `forward`."""
        node = self.create_node(kind, target, self.create_arg(args), self.create_arg(kwargs), name, type_expr)
        self.scopes[node] = self.scope.module_path
        if kind != "get_attr":
            with self._paused():
                self.known.compute(node, self._operation(kind, target))
        check_precision(node, self.examples)
        return self.symbol(node)

    def _operation(self, kind: str, target: Any) -> Callable[..., Any]:
        if kind == "call_module":
            return self.plain_modules[target]
        if kind == "call_method":
            return lambda owner, *args, **kwargs: getattr(owner, target)(*args, **kwargs)
        assert kind == "call_function", kind
        return target

    def symbol(self, node: fx.Node) -> Any:
        """Return the value of a node for `forward`: a symbol, a container of symbols, or a plain value."""
        first, second = self.known.both(node)
        if isinstance(first, torch.Tensor):
            return TensorSymbol(node, self)
        if isinstance(first, torch.Size):
            return self.shape_of(TensorSymbol(node.args[0], self))  # type: ignore[arg-type]
        if tensors_in(first):
            return self._container(node, first, second)
        if _reads_values(node, self.examples):
            if node in self.known.variable:
                raise data_dependent(f"turns the values of a tensor into something else (`{_name(node)}`)")
            return first
        depends = any(_is_number(self.known.both(source)) for source in node.all_input_nodes)
        if not depends and _are_equal(first, second):
            return first
        if isinstance(first, (int, float)):
            return NumberSymbol(node, self)
        raise fixed_batch_size(f"makes a {type(first).__name__} out of the batch size")

    def _container(self, node: fx.Node, first: Any, second: Any) -> Any:
        """Return the container that a node returns, with a symbol for each part."""
        if len(first) != len(second):
            raise fixed_batch_size(f"gets as many tensors as the batch has images (`{_name(node)}`)")
        keys = list(first) if isinstance(first, dict) else range(len(first))
        parts = {
            key: self.create_proxy("call_function", operator.getitem, (fx.Proxy(node, self), key), {})
            for key in keys
        }
        if isinstance(first, dict):
            return type(first)(parts)
        values = tuple(parts.values())
        return type(first)(*values) if hasattr(first, "_fields") else type(first)(values)

    def shape_of(self, tensor: TensorSymbol) -> Any:
        """Return the shape of a symbolic tensor: plain numbers, and symbols that depend on the batch size."""
        first, second = (value.shape for value in self.known.both(tensor.node))
        same_rank = len(first) == len(second)
        return Shape(
            size
            if same_rank and size == second[place]
            else self._recorded("call_method", "size", (tensor, place))
            for place, size in enumerate(first)
        )

    def _recorded(self, kind: str, target: Any, args: tuple[Any, ...]) -> NumberSymbol:
        node = self.create_node(kind, target, self.create_arg(args), {})
        self.scopes[node] = self.scope.module_path
        with self._paused():
            self.known.compute(node, self._operation(kind, target))
        return NumberSymbol(node, self)

    def constant(self, tensor: TensorSymbol, what: str) -> torch.Tensor:
        """Return the value of a tensor that does not depend on the inputs; other tensors are refused."""
        if tensor.node in self.known.variable:
            raise data_dependent(what)
        value: torch.Tensor = self.examples[tensor.node].detach()
        return value

    def on_each_batch(self, operation: Callable[..., Any], *values: Any) -> tuple[Any, Any]:
        """Return the results of a function of symbols for both batch sizes."""
        pairs = [self.known.pair(value) for value in values]
        return operation(*(first for first, _ in pairs)), operation(*(second for _, second in pairs))

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a symbol for a parameter or buffer, and any other attribute as it is."""
        path = None if self.is_paused else self.tensor_paths.get(id(attr_val))
        if path is None:
            return attr_val
        if path not in self.attribute_symbols:
            self.attribute_symbols[path] = self.create_proxy("get_attr", path, (), {})
        return self.attribute_symbols[path]

    def proxy(self, node: fx.Node) -> Any:
        """Return the value of a node for `forward`."""
        return self.symbol(node)

    @property
    def is_paused(self) -> bool:
        """Return whether a called module computes on real tensors, as it always does in other threads."""
        return self._is_computing or threading.get_ident() != self._thread

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Let called modules compute on real tensors inside the `with` block."""
        before, self._is_computing = self._is_computing, True
        try:
            yield
        finally:
            self._is_computing = before


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _reads_values(node: fx.Node, examples: dict[fx.Node, Any]) -> bool:
    """Return whether a node, whose result is no tensor, may read the values of a tensor."""
    reads = any(isinstance(examples[source], torch.Tensor) for source in node.all_input_nodes)
    return reads and _name(node) not in _FORM


def _is_number(pair: tuple[Any, Any]) -> bool:
    return isinstance(pair[0], (int, float))


def _are_equal(first: Any, second: Any) -> bool:
    return type(first) is type(second) and bool(first == second)
