"""The tracer: it runs `forward` on symbolic values and records the plain twin of each module."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from eq_aimet import plain
from eq_aimet.adapters.libraries import is_field_type, is_typed_tensor, library_of
from eq_aimet.adapters.tracing.hooks import (
    call_with_hooks,
    has_own_forward,
    refresh_reparametrization,
    without_reparametrization,
)
from eq_aimet.adapters.tracing.inputs import BoundInputs, without_types
from eq_aimet.adapters.tracing.own_exports import check_own_export, own_export
from eq_aimet.adapters.tracing.refusals import (
    own_forward,
    script_module,
    unregistered,
    wrong_channels,
    wrong_type,
)
from eq_aimet.adapters.tracing.value_tracer import ValueTracer
from eq_aimet.adapters.tracing.wrappers import unwrapped
from eq_aimet.errors import ExportError, PluginError
from eq_aimet.symmetry.calling import tensors_in

__all__ = ["ModuleConverter", "Tracer", "wrap_in_type"]

# Returns the plain twin of an equivariant module, or `None` for a module to trace into.
ModuleConverter = Callable[[torch.nn.Module], "torch.nn.Module | None"]


class Tracer(ValueTracer):
    """Records the plain twin of each module, and unwraps and wraps typed tensors around it.

    Args:
        inputs: The dummy inputs of each parameter of `forward`.
        convert: Returns the plain twin of an equivariant module, or `None` for a module to trace into.
    """

    def __init__(self, inputs: BoundInputs, convert: ModuleConverter) -> None:
        super().__init__(inputs)
        self.convert = convert
        self.in_place: set[fx.Node] = set()
        self.called: set[str] = set()

    def call_module(
        self, m: torch.nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a module's plain twin, or trace into the module; in both cases its hooks run."""
        if self.is_paused or m is self.root:  # the module runs on real tensors
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
        """Return the path of a module; a module created in `forward`, or kept in a list, gets a new name."""
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
        result = self.create_proxy("call_module", self._target_of_call(path), args, kwargs)
        if getattr(module, "inplace", False) or getattr(module, "_inplace", False):
            self.in_place.add(result.node)
        out_type: Any = getattr(module, "out_type", None)
        if not is_field_type(out_type):
            return result
        value = self.known.first[result.node]
        if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[1] != out_type.size:
            raise wrong_channels(module, path, value.shape[1], out_type)
        return wrap_in_type(result, out_type)

    def _target_of_call(self, path: str) -> str:
        """Return the path of the plain module to call; each call of a module without weights gets a copy.

        If a module runs twice, AIMET quantizes at most one of its outputs. Blocks of residual networks often
        have a single ReLU, which they call after each convolution.
        """
        is_first = path not in self.called
        self.called.add(path)
        twin = self.plain_modules[path]
        if is_first or twin.state_dict():
            return path
        taken = {name for name, _ in self.root.named_modules()}
        target = next(
            name
            for name in (f"{path}_{count}" for count in itertools.count(2))
            if name not in self.plain_modules and name not in taken
        )
        self.plain_modules[target] = copy.deepcopy(twin)
        return target

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
        with self._paused():
            check_own_export(module, path, exported, args, self.known)
        return self._record_module(module, path, *args, **kwargs)

    def _mark(self) -> tuple[fx.Node | None, set[str]]:
        """Return a mark: the current end of the graph and the current modules."""
        return next(iter(reversed(self.graph.nodes)), None), set(self.plain_modules)

    def _take_back(self, mark: tuple[fx.Node | None, set[str]]) -> None:
        """Remove all nodes and modules that were added after the mark."""
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
        """Return `twin` on the device of the inputs, because a module without weights has no device."""
        first = next(iter(tensors_in(without_types(self.inputs.values))), None)
        if first is None:
            return twin
        return twin.to(first.device, first.dtype if first.is_floating_point() else None)

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is copied as a whole."""
        # eq_aimet's own plain modules have quantized twins, so they stay whole, like torch's modules.
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
