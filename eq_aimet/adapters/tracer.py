"""The tracer: it runs `forward` on symbolic values and records the plain twin of each module."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx

from eq_aimet import plain
from eq_aimet.adapters.examples import Examples, one_more
from eq_aimet.adapters.hooks import (
    call_with_hooks,
    has_own_forward,
    refresh_reparametrization,
    without_reparametrization,
)
from eq_aimet.adapters.inputs import BoundInputs, with_types_of, without_types
from eq_aimet.adapters.libraries import is_field_type, is_typed_tensor, library_of
from eq_aimet.adapters.own_exports import check_own_export, own_export
from eq_aimet.adapters.precision_casts import check_precision
from eq_aimet.adapters.refusals import (
    data_dependent,
    fixed_batch_size,
    own_forward,
    script_module,
    unregistered,
    wrong_type,
)
from eq_aimet.adapters.symbols import NumberSymbol, Shape, TensorSymbol
from eq_aimet.adapters.wrappers import unwrapped
from eq_aimet.errors import ExportError, PluginError
from eq_aimet.symmetry.calling import map_tensors, tensors_in

__all__ = ["ModuleConverter", "Tracer", "wrap_in_type"]

# Gives the plain module of an equivariant one, or `None` for a module to trace into.
ModuleConverter = Callable[[torch.nn.Module], "torch.nn.Module | None"]

# What a tensor's form says, as opposed to its values.
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


class Tracer(fx.Tracer):
    """Records the plain twin of each module, and unwraps and wraps typed tensors around it.

    Args:
        inputs: The dummy inputs of each parameter of `forward`.
        convert: Gives the plain module of an equivariant one, or `None` for a module to trace into.
    """

    def __init__(self, inputs: BoundInputs, convert: ModuleConverter) -> None:
        super().__init__()
        # Functions of `math` would be recorded otherwise, and fix the batch size when the model is exported.
        self._autowrap_search, self._autowrap_function_ids = [], set()
        self.inputs = inputs
        self.convert = convert
        self.known = Examples()
        self.plain_modules: dict[str, torch.nn.Module] = {}
        self.scopes: dict[fx.Node, str] = {}
        self.in_place: set[fx.Node] = set()
        self.is_paused = False
        # The paths of parameters and buffers, and the symbols of those that `forward` has asked for. Tensors
        # are known by their identity: libraries define the hash of a module by its contents.
        self.tensor_paths: dict[int, str] = {}
        self.attribute_symbols: dict[str, Any] = {}

    @property
    def examples(self) -> dict[fx.Node, Any]:
        """Each node's result on the dummy input."""
        return self.known.first

    # --- inputs and values --------------------------------------------------------------------------------

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
        """Return what stands for a value in the graph; a typed tensor stands for its tensor."""
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
                value = value.detach().clone()  # an operation in place must not reach the source
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
        """Record a node, compute it on the dummy input, and return what `forward` gets for it."""
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
        """Return what `forward` gets for a node: a symbol, a container of symbols, or a plain value."""
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
        """Return the container that a node gives, with a symbol for each part."""
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
        """Return the value of a tensor that does not depend on the inputs; others are refused."""
        if tensor.node in self.known.variable:
            raise data_dependent(what)
        value: torch.Tensor = self.examples[tensor.node].detach()
        return value

    def on_each_batch(self, operation: Callable[..., Any], *values: Any) -> tuple[Any, Any]:
        """Return the results of a function of symbols for both batch sizes."""
        pairs = [self.known.pair(value) for value in values]
        return operation(*(first for first, _ in pairs)), operation(*(second for _, second in pairs))

    # --- modules ------------------------------------------------------------------------------------------

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a module's plain twin, or trace into the module, with its hooks in either case."""
        if self.is_paused or m is self.root:  # a module at work on real tensors
            return forward(*args, **kwargs)
        inner = unwrapped(m)
        if inner is not m:
            return inner(*args, **kwargs)
        path = self._path_of(m)
        if path not in self.plain_modules:
            twin = self._plain_twin(m, path)
            if twin is None:
                return self._trace_into(m, forward, path, args, kwargs)
            self.plain_modules[path] = twin
        return call_with_hooks(m, functools.partial(self._record_module, m, path), args, kwargs)

    def _path_of(self, module: torch.nn.Module) -> str:
        """Return the path of a module; one that `forward` has made, or keeps in a list, gets a new name."""
        try:
            return self.path_of_module(module)
        except NameError:
            pass
        if any(part.training and _depends_on_mode(part) for part in module.modules()):
            raise unregistered(module)
        path = self.get_fresh_qualname(type(module).__name__.lower())
        self.root.add_module(path, module)
        assert self.submodule_paths is not None
        with self._paused():
            self._learn_paths(module, path)
            for name, part in module.named_modules(prefix=path):
                self.submodule_paths.setdefault(part, name)
        return path

    def _record_module(self, module: torch.nn.Module, path: str, *args: Any, **kwargs: Any) -> Any:
        if library_of(module) is not None:
            args, kwargs = inspect.signature(module.forward).bind(*args, **kwargs).args, {}
            _check_types(module, args, path)
        result = self.create_proxy("call_module", path, args, kwargs)
        if getattr(module, "inplace", False) or getattr(module, "_inplace", False):
            self.in_place.add(result.node)
        out_type = getattr(module, "out_type", None)
        return wrap_in_type(result, out_type) if is_field_type(out_type) else result

    def _trace_into(
        self,
        module: torch.nn.Module,
        forward: Callable[..., Any],
        path: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        library = library_of(module)
        if library is not None and library.owns(type(module)):
            _check_types(module, args, path)
        composite = None if library is None else library.composites.get(type(module))
        with fx.proxy.ScopeContextManager(self.scope, fx.proxy.Scope(path, type(module))):
            if composite is not None:
                replaced = functools.partial(composite, module, functools.partial(self._record_new, path))
                return call_with_hooks(module, replaced, args, kwargs)
            mark = self._mark()
            try:
                return module._call_impl(*args, **kwargs)  # with its hooks, and without compiled code
            except Exception as error:
                with self._paused():
                    exported = own_export(module, path, error)
                if exported is None:
                    raise
            self._take_back(mark)
        self.plain_modules[path] = self._placed(exported)
        result = self._record_module(module, path, *args, **kwargs)
        with self._paused():
            check_own_export(module, path, exported, args, self.known)
        return result

    def _mark(self) -> tuple[fx.Node | None, set[str]]:
        """Return where the graph ends now, and the modules that it has."""
        return next(iter(reversed(self.graph.nodes)), None), set(self.plain_modules)

    def _take_back(self, mark: tuple[fx.Node | None, set[str]]) -> None:
        """Remove whatever the graph got after the mark."""
        last, names = mark
        for node in reversed(self.graph.nodes):
            if node is last:
                break
            self.graph.erase_node(node)
        for name in set(self.plain_modules) - names:
            del self.plain_modules[name]

    def _record_new(self, path: str, module: torch.nn.Module, name: str, *tensors: Any) -> Any:
        """Record the call of a plain module that a composite consists of."""
        target = f"{path}.{name}" if path else name
        self.plain_modules[target] = self._placed(module.eval())
        return self.create_proxy("call_module", target, tensors, {})

    def _plain_twin(self, module: torch.nn.Module, path: str) -> torch.nn.Module | None:
        library = library_of(module)
        if has_own_forward(module):
            if library is not None and library.owns(type(module)):
                raise own_forward(module, path)
            return None
        if isinstance(module, torch.jit.ScriptModule):
            raise script_module(path)
        try:
            with self._paused():
                refresh_reparametrization(module)
                twin = self.convert(module)
                is_copied = twin is None and library is None and self.is_leaf_module(module, path)
                if is_copied:
                    twin = without_reparametrization(module)
        except (ExportError, PluginError) as error:
            raise type(error)(f"`model.{path}`: {error}") from error
        if is_copied:
            if getattr(twin, "inplace", False):
                twin.inplace = False  # type: ignore[union-attr]
            return twin
        return None if twin is None else self._placed(twin)

    def _placed(self, twin: torch.nn.Module) -> torch.nn.Module:
        """Return `twin` on the device of the inputs, which modules without weights don't know."""
        first = next(iter(tensors_in(without_types(self.inputs.values))), None)
        if first is None:
            return twin
        return twin.to(first.device, first.dtype if first.is_floating_point() else None)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a symbol for a parameter or buffer, and any other attribute as it is."""
        path = None if self.is_paused else self.tensor_paths.get(id(attr_val))
        if path is None:
            return attr_val
        if path not in self.attribute_symbols:
            self.attribute_symbols[path] = self.create_proxy("get_attr", path, (), {})
        return self.attribute_symbols[path]

    def proxy(self, node: fx.Node) -> Any:
        """Return what `forward` gets for a node."""
        return self.symbol(node)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Compute on real tensors meanwhile."""
        before, self.is_paused = self.is_paused, True
        try:
            yield
        finally:
            self.is_paused = before

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is copied as a whole."""
        # eq_aimet's own plain modules have quantized twins and stay whole, as torch's do.
        own = type(m).__module__.startswith(plain.__name__)
        return library_of(m) is None and (own or super().is_leaf_module(m, module_qualified_name))


def wrap_in_type(tensor: Any, field_type: Any) -> Any:
    """Return the typed tensor of a symbolic tensor."""
    library = library_of(field_type)
    assert library is not None
    return library.tensor_class(tensor, field_type)


def _check_types(module: torch.nn.Module, args: tuple[Any, ...], path: str) -> None:
    in_type: Any = getattr(module, "in_type", None)
    in_types = in_type if isinstance(in_type, (tuple, list)) else (in_type,)
    for argument, expected in zip(args, in_types, strict=False):
        if not is_field_type(expected):
            continue
        if not is_typed_tensor(argument):
            raise wrong_type(module, path, "a plain tensor", expected)
        if argument.type != expected:
            raise wrong_type(module, path, f"a field of type {argument.type}", expected)


def _depends_on_mode(module: torch.nn.Module) -> bool:
    name = type(module).__name__
    return "BatchNorm" in name or "Dropout" in name or "InstanceNorm" in name


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
