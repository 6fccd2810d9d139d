"""Tracing a network of equivariant and torch modules into a plain graph.

The network's own `forward` runs once on symbolic values. Each value carries its result on the dummy input, so
that shapes are known and code that looks at them runs as usual; only decisions that depend on the data are
refused.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx

from eq_aimet import plain
from eq_aimet.adapters.functions import operations_to_modules
from eq_aimet.adapters.graphs import (
    TracedGraph,
    in_place_to_plain,
    is_batch_size,
)
from eq_aimet.adapters.label_norms import merge_label_norms
from eq_aimet.adapters.libraries import is_field_type, is_typed_tensor, library_of, loaded_libraries
from eq_aimet.adapters.refusals import data_dependent, fixed_batch_size, tracing_error, wrong_type
from eq_aimet.errors import ExportError, InvalidArgumentError

__all__ = ["trace_plain_model"]

# Properties of a tensor that are values themselves; torch.fx takes them for methods until they are used.
_PROPERTIES = ("shape", "ndim", "dtype", "device", "T", "mT", "is_cuda", "requires_grad")

ModuleConverter = Callable[[torch.nn.Module], "torch.nn.Module | None"]


def trace_plain_model(
    model: torch.nn.Module, inputs: tuple[Any, ...], convert: ModuleConverter
) -> fx.GraphModule:
    """Return a plain model that computes what `model` does in eval mode.

    Args:
        model: The network; equivariant modules and ordinary torch.
        inputs: Dummy inputs of its `forward`: tensors or typed tensors.
        convert: Gives the plain module of an equivariant one, or `None` for a module to trace into.

    Raises:
        ExportError: If the network can't be traced, or has a module without a plain equivalent.
        InvalidArgumentError: If `model` does not run on `inputs`.
    """
    root = _Holder(model) if _is_converted_whole(model, convert) else model
    tracer = _Tracer(inputs, convert)
    with _eval_flags(model), _symbols_in_typed_tensors(), _without_new_attributes(root), torch.no_grad():
        try:
            graph = tracer.trace(root)
        except (ExportError, InvalidArgumentError):
            raise
        except Exception as error:
            raise tracing_error(error, tracer.inputs) from error
        targets = {node.target for node in graph.nodes if node.op == "get_attr"}
        attributes = {target: copy.deepcopy(operator.attrgetter(target)(root)) for target in targets}
    traced = TracedGraph(graph, tracer.examples, tracer.scopes, tracer.in_place)
    in_place_to_plain(traced)
    operations_to_modules(traced, attributes, tracer.plain_modules)
    merge_label_norms(traced, tracer.plain_modules)
    # A copy does not remember this tracer, which unpickling the model would otherwise ask for.
    plain_graph = fx.Graph()
    plain_graph.output(plain_graph.graph_copy(graph, {}))
    _drop_unused_operations(plain_graph)
    plain_graph.lint()
    modules = {**tracer.plain_modules, **attributes}
    return fx.GraphModule(modules, plain_graph, type(model).__name__).eval()


def _drop_unused_operations(graph: fx.Graph) -> None:
    """Remove in place the operations that nothing uses; layers stay, used or not."""
    for node in reversed(graph.nodes):
        if node.op in ("call_function", "call_method") and not node.users and not node.is_impure():
            graph.erase_node(node)


def _is_converted_whole(model: torch.nn.Module, convert: ModuleConverter) -> bool:
    library = library_of(model)
    return library is not None and (type(model) in library.composites or convert(model) is not None)


class _Holder(torch.nn.Module):
    """Calls the one module that is to be converted: the tracer converts what a model calls, not the model."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        """Return the module's output."""
        return self.module(*inputs)


class _Proxy(fx.Proxy):
    """A symbolic value that knows its result on the dummy input."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> Any:
        if name in _PROPERTIES and isinstance(self.tracer.examples[self.node], torch.Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)

    def __mul__(self, other: Any) -> Any:
        if is_typed_tensor(other):
            return NotImplemented  # a factor on the left of a field: the field multiplies itself
        return self.tracer.create_proxy("call_function", operator.mul, (self, other), {})

    def __iadd__(self, other: Any) -> Any:
        return self._change(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._change(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._change(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._change(operator.itruediv, other)

    def _change(self, operation: Callable[..., Any], other: Any) -> Any:
        """Record a change in place, which torch.fx would record as a new value."""
        if not isinstance(self.tracer.examples[self.node], torch.Tensor):
            return NotImplemented
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    def _number(self) -> Any:
        example = self.tracer.examples[self.node]
        if isinstance(example, torch.Tensor):
            raise data_dependent("turns a tensor into a number")
        if is_batch_size(self.node, self.tracer.examples):
            raise fixed_batch_size("turns the batch size into a fixed number")
        return example

    def __len__(self) -> int:
        example = self.tracer.examples[self.node]
        if isinstance(example, torch.Tensor):
            raise fixed_batch_size("takes the `len` of a tensor, which is a fixed number")
        return len(example)

    def __format__(self, specification: str) -> str:
        example = self.tracer.examples[self.node]
        return (
            super().__format__(specification)
            if isinstance(example, torch.Tensor)
            else format(example, specification)
        )

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __index__(self) -> int:
        return operator.index(self._number())


class _Tracer(fx.Tracer):
    """Records the plain twin of each module, and unwraps and wraps typed tensors around it."""

    def __init__(self, inputs: tuple[Any, ...], convert: ModuleConverter) -> None:
        super().__init__()
        self.inputs = inputs
        self.convert = convert
        self.examples: dict[fx.Node, Any] = {}
        self.plain_modules: dict[str, torch.nn.Module] = {}
        self.scopes: dict[fx.Node, str] = {}
        self.in_place: set[fx.Node] = set()
        self.is_paused = False

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        names = root_fn.__code__.co_varnames[1 : root_fn.__code__.co_argcount]
        if isinstance(self.root, _Holder):
            names = ()
        arguments: list[Any] = [self.root]
        for position, value in enumerate(self.inputs):
            name = names[position] if position < len(names) else f"input_{position}"
            typed = is_typed_tensor(value)
            tensor = value.tensor if typed else value
            proxy = self._symbol(
                "placeholder", name, (), {}, tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
            )
            arguments.append(type(value)(proxy, value.type) if typed else proxy)
        return root_fn, arguments

    def create_arg(self, a: Any) -> Any:
        if is_typed_tensor(a):
            a = a.tensor
        return super().create_arg(a.item() if isinstance(a, np.generic) else a)

    def create_node(self, kind: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(kind, target, *args, **kwargs)
        if kind == "get_attr":  # a parameter, buffer or constant
            with self._paused():
                self.examples[node] = operator.attrgetter(target)(self.root)
        return node

    def proxy(self, node: fx.Node) -> _Proxy:
        return _Proxy(node, self)

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
        proxy = super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        node = proxy.node
        self.scopes[node] = self.scope.module_path
        if kind not in ("placeholder", "output", "get_attr"):
            example_args, example_kwargs = fx.node.map_arg(
                (node.args, node.kwargs), self.examples.__getitem__
            )
            with self._paused():
                self.examples[node] = self._evaluate(kind, target, example_args, example_kwargs)
        return proxy

    def _symbol(
        self, kind: str, target: str, args: tuple[Any, ...], kwargs: dict[str, Any], example: Any
    ) -> Any:
        proxy = self.create_proxy(kind, target, args, kwargs)
        self.examples[proxy.node] = example
        return proxy

    def _evaluate(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kind == "call_function":
            return target(*args, **kwargs)
        if kind == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if kind == "call_module":
            return self.plain_modules[target](*args, **kwargs)
        raise AssertionError(f"a node of kind {kind}")

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.is_paused:  # a module at work on real tensors
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if path not in self.plain_modules:
            plain = self._plain_twin(m, path)
            if plain is None:
                library = library_of(m)
                if library is not None and library.owns(type(m)):
                    _check_types(m, args, path)
                return super().call_module(m, self._composite(m, path) or forward, args, kwargs)
            self.plain_modules[path] = plain
        if library_of(m) is not None:
            _check_types(m, args, path)
        proxy = self.create_proxy("call_module", path, args, kwargs)
        if getattr(m, "inplace", False) or getattr(m, "_inplace", False):
            self.in_place.add(proxy.node)
        out_type = getattr(m, "out_type", None)
        return _wrap(proxy, out_type) if is_field_type(out_type) else proxy

    def _composite(self, module: torch.nn.Module, path: str) -> Callable[..., Any] | None:
        """Return what replaces the forward of a module that handles fields by label, or `None` for others."""
        library = library_of(module)
        composite = None if library is None else library.composites.get(type(module))
        if composite is None:
            return None

        def record(plain: torch.nn.Module, name: str, *tensors: Any) -> Any:
            target = f"{path}.{name}" if path else name
            self.plain_modules[target] = self._placed(plain.eval())
            return self.create_proxy("call_module", target, tensors, {})

        return functools.partial(composite, module, record)

    def _plain_twin(self, module: torch.nn.Module, path: str) -> torch.nn.Module | None:
        try:
            with self._paused():
                plain = self.convert(module)
        except ExportError as error:
            raise ExportError(f"`model.{path}`: {error}") from error
        if plain is None and library_of(module) is None and self.is_leaf_module(module, path):
            plain = copy.deepcopy(module)
            if getattr(plain, "inplace", False):
                plain.inplace = False  # type: ignore[assignment]
            return plain
        return None if plain is None else self._placed(plain)

    def _placed(self, plain: torch.nn.Module) -> torch.nn.Module:
        """Return `plain` on the device of the inputs, which modules without weights don't know."""
        first = next(
            (value for value in map(_tensor_of, self.inputs) if isinstance(value, torch.Tensor)), None
        )
        if first is None:
            return plain
        return plain.to(first.device, first.dtype if first.is_floating_point() else None)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self.is_paused else super().getattr(attr, attr_val, parameter_proxy_cache)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Compute on real tensors meanwhile."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        # eq_aimet's own plain modules have quantized twins and stay whole, as torch's do.
        own = type(m).__module__.startswith(plain.__name__)
        return library_of(m) is None and (own or super().is_leaf_module(m, module_qualified_name))

    def to_bool(self, obj: fx.Proxy) -> bool:
        example = self.examples[obj.node]
        if isinstance(example, torch.Tensor):
            raise data_dependent("decides on the values of a tensor")
        return bool(example)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        length = len(self.examples[obj.node])
        return iter([operator.getitem(obj, position) for position in range(length)])


def _check_types(module: torch.nn.Module, args: tuple[Any, ...], path: str) -> None:
    in_type: Any = getattr(module, "in_type", None)
    in_types = in_type if isinstance(in_type, (tuple, list)) else (in_type,)
    for argument, in_type in zip(args, in_types, strict=False):
        if not is_field_type(in_type):
            continue
        if not is_typed_tensor(argument):
            raise wrong_type(module, path, "a plain tensor", in_type)
        if argument.type != in_type:
            raise wrong_type(module, path, f"a field of type {argument.type}", in_type)


def _tensor_of(value: Any) -> Any:
    return value.tensor if is_typed_tensor(value) else value


@contextmanager
def _eval_flags(model: torch.nn.Module) -> Iterator[None]:
    """Show `forward` the eval mode by the flags alone: a library's `train()` would rebuild the filters."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _symbols_in_typed_tensors() -> Iterator[None]:
    """Let the typed tensors of each library that is in use wrap symbolic values."""
    with ExitStack() as stack:
        for library in loaded_libraries():
            stack.enter_context(library.accept_symbols())
        yield


def _wrap(tensor: Any, field_type: Any) -> Any:
    library = library_of(field_type)
    assert library is not None
    return library.tensor_class(tensor, field_type)


@contextmanager
def _without_new_attributes(model: torch.nn.Module) -> Iterator[None]:
    """Take away the constants that torch.fx leaves on the model that it traces."""
    before = set(vars(model))
    try:
        yield
    finally:
        for name in set(vars(model)) - before:
            delattr(model, name)
