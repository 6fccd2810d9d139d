"""Tracing a network of e2cnn and torch modules into a plain graph.

The network's own `forward` runs once on symbolic values. Each value carries its result on the dummy input, so that shapes
are known and code that looks at them runs as usual; only decisions that depend on the data are refused.
"""

from __future__ import annotations

import copy
import operator
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from e2cnn.nn import EquivariantModule, FieldType, GeometricTensor
from torch import fx

from eq_aimet.errors import ExportError, InvalidArgumentError
from eq_aimet.symmetry.modules import Add

__all__ = ["trace_plain_model"]

ModuleConverter = Callable[[torch.nn.Module], "torch.nn.Module | None"]

_SUMS = (operator.add, operator.iadd, torch.add)


def trace_plain_model(
    model: torch.nn.Module, inputs: tuple[Any, ...], convert: ModuleConverter
) -> fx.GraphModule:
    """Return a plain model that computes what `model` does in eval mode.

    Args:
        model: The network; e2cnn modules and ordinary torch.
        inputs: Dummy inputs of its `forward`: tensors or `GeometricTensor`s.
        convert: Gives the plain module of an equivariant one, or `None` for a module to trace into.

    Raises:
        ExportError: If the network can't be traced, or has a module without a plain equivalent.
        InvalidArgumentError: If `model` does not run on `inputs`.
    """
    tracer = _Tracer(inputs, convert)
    with _eval_flags(model), _geometric_tensors_of_proxies(), _without_new_attributes(model), torch.no_grad():
        try:
            graph = tracer.trace(model)
        except (ExportError, InvalidArgumentError):
            raise
        except Exception as error:
            raise _tracing_error(error, tracer) from error
        targets = {node.target for node in graph.nodes if node.op == "get_attr"}
        attributes = {target: copy.deepcopy(operator.attrgetter(target)(model)) for target in targets}
    sums = tracer.sums_to_modules(graph)
    # A copy does not remember this tracer, which unpickling the model would otherwise ask for.
    plain_graph = fx.Graph()
    plain_graph.output(plain_graph.graph_copy(graph, {}))
    plain_graph.lint()
    plain = fx.GraphModule({**tracer.plain_modules, **sums, **attributes}, plain_graph, type(model).__name__)
    return plain.eval()


class _Proxy(fx.Proxy):
    """A symbolic value that knows its result on the dummy input."""

    def _number(self) -> Any:
        example = self.tracer.examples[self.node]
        if isinstance(example, torch.Tensor):
            raise _data_dependent("turns a tensor into a number")
        return example

    def __len__(self) -> int:
        return len(self.tracer.examples[self.node])

    def __int__(self) -> int:
        return int(self._number())

    def __float__(self) -> float:
        return float(self._number())

    def __index__(self) -> int:
        return operator.index(self._number())


class _Tracer(fx.Tracer):
    """Records the plain twin of each module, and unwraps and wraps e2cnn's typed tensors around it."""

    def __init__(self, inputs: tuple[Any, ...], convert: ModuleConverter) -> None:
        super().__init__()
        self.inputs = inputs
        self.convert = convert
        self.examples: dict[fx.Node, Any] = {}
        self.plain_modules: dict[str, torch.nn.Module] = {}
        self.scopes: dict[fx.Node, str] = {}
        self.is_paused = False

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        names = root_fn.__code__.co_varnames[1 : root_fn.__code__.co_argcount]
        arguments: list[Any] = [self.root]
        for position, value in enumerate(self.inputs):
            name = names[position] if position < len(names) else f"input_{position}"
            typed = isinstance(value, GeometricTensor)
            tensor = value.tensor if typed else value
            proxy = self._symbol(
                "placeholder", name, (), {}, tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
            )
            arguments.append(GeometricTensor(proxy, value.type) if typed else proxy)
        return root_fn, arguments

    def create_arg(self, a: Any) -> Any:
        return super().create_arg(a.tensor if isinstance(a, GeometricTensor) else a)

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
        if kind not in ("placeholder", "output"):
            example_args, example_kwargs = fx.node.map_arg((node.args, node.kwargs), self.examples.__getitem__)
            with self._paused():
                self.examples[node] = self._evaluate(kind, target, example_args, example_kwargs)
        return proxy

    def _symbol(self, kind: str, target: str, args: tuple[Any, ...], kwargs: dict[str, Any], example: Any) -> Any:
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
        return operator.attrgetter(target)(self.root)

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self.is_paused:  # a module at work on real tensors
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        if path not in self.plain_modules:
            plain = self._plain_twin(m, path)
            if plain is None:
                return super().call_module(m, forward, args, kwargs)
            self.plain_modules[path] = plain
        if isinstance(m, EquivariantModule):
            _check_types(m, args, path)
        proxy = self.create_proxy("call_module", path, args, kwargs)
        out_type = getattr(m, "out_type", None)
        return GeometricTensor(proxy, out_type) if isinstance(out_type, FieldType) else proxy

    def _plain_twin(self, module: torch.nn.Module, path: str) -> torch.nn.Module | None:
        try:
            with self._paused():
                plain = self.convert(module)
        except ExportError as error:
            raise ExportError(f"`model.{path}`: {error}") from error
        if plain is None and not isinstance(module, EquivariantModule) and self.is_leaf_module(module, path):
            return copy.deepcopy(module)
        return plain

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
        return not isinstance(m, EquivariantModule) and super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        example = self.examples[obj.node]
        if isinstance(example, torch.Tensor):
            raise _data_dependent("decides on the values of a tensor")
        return bool(example)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return iter([obj[position] for position in range(len(self.examples[obj.node]))])

    def sums_to_modules(self, graph: fx.Graph) -> dict[str, torch.nn.Module]:
        """Replace each sum of two tensors in `graph` by a call of an `Add`, in place; return the modules by name."""
        modules: dict[str, torch.nn.Module] = {}
        for node in list(graph.nodes):
            is_sum = (node.op == "call_function" and node.target in _SUMS) or (
                node.op == "call_method" and node.target in ("add", "add_")
            )
            tensors = [
                isinstance(argument, fx.Node) and isinstance(self.examples[argument], torch.Tensor)
                for argument in node.args
            ]
            if not is_sum or node.kwargs or tensors != [True, True]:
                continue
            scope = self.scopes[node]
            stem = f"{scope}.add" if scope else "add"
            taken = {*modules, *self.plain_modules}
            name = next(
                name for name in (stem, *(f"{stem}_{count}" for count in range(1, 10_000))) if name not in taken
            )
            modules[name] = Add().eval()
            with graph.inserting_before(node):
                replacement = graph.call_module(name, node.args)
            self.examples[replacement] = self.examples[node]
            node.replace_all_uses_with(replacement)
            graph.erase_node(node)
        return modules


def _check_types(module: EquivariantModule, args: tuple[Any, ...], path: str) -> None:
    for argument in args:
        if isinstance(argument, GeometricTensor) and argument.type != module.in_type:
            raise ExportError(
                f"`model.{path}` ({type(module).__name__}): received a field of type {argument.type}, expected "
                f"{module.in_type}. Give the module the field type of what it is called with."
            )


def _data_dependent(what: str) -> ExportError:
    frame = _user_frame(traceback.extract_stack()[:-2])
    return ExportError(
        f"The model can't be traced: {frame.filename}, line {frame.lineno}, in {frame.name}: `{frame.line}` {what}. "
        "A plain graph has one path for all data: take this decision out of `forward`."
    )


def _tracing_error(error: Exception, tracer: _Tracer) -> Exception:
    frames = traceback.extract_tb(error.__traceback__)
    frame = _user_frame(frames)
    place = f"{frame.filename}, line {frame.lineno}, in {frame.name}: `{frame.line}`"
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if type(error) in (RuntimeError, ValueError, IndexError):
        shapes = [tuple(getattr(value, "shape", ())) for value in tracer.inputs]
        return InvalidArgumentError(
            "dummy_input",
            received=f"inputs of shape {', '.join(map(str, shapes))}, on which the model fails at {place} ({reason})",
            expected="inputs as the model's `forward` takes them",
            remedy="Give one batch as the model sees it in training.",
        )
    return ExportError(
        f"The model can't be traced: {place} fails ({reason}). Write this line with torch operations on tensors and e2cnn "
        "modules, or register a plugin whose `eq_aimet_export_module` returns a plain module for the part that has it."
    )


def _user_frame(frames: traceback.StackSummary | list[traceback.FrameSummary]) -> traceback.FrameSummary:
    """Return the innermost frame that is neither torch's, e2cnn's nor this file's."""
    foreign = (__file__, "/torch/", "/e2cnn/")
    users = [frame for frame in frames if not any(part in frame.filename for part in foreign)]
    return (users or list(frames))[-1]


@contextmanager
def _eval_flags(model: torch.nn.Module) -> Iterator[None]:
    """Show `forward` the eval mode by the flags alone: e2cnn's `train()` would rebuild the filters."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _geometric_tensors_of_proxies() -> Iterator[None]:
    """Let `GeometricTensor` wrap a symbolic value, which its constructor's assertions refuse."""
    original = GeometricTensor.__init__

    def initialize(self: GeometricTensor, tensor: Any, type: FieldType) -> None:
        if isinstance(tensor, fx.Proxy):
            self.tensor, self.type = tensor, type
        else:
            original(self, tensor, type)

    GeometricTensor.__init__ = initialize
    try:
        yield
    finally:
        GeometricTensor.__init__ = original


@contextmanager
def _without_new_attributes(model: torch.nn.Module) -> Iterator[None]:
    """Take away the constants that torch.fx leaves on the model that it traces."""
    before = set(vars(model))
    try:
        yield
    finally:
        for name in set(vars(model)) - before:
            delattr(model, name)
