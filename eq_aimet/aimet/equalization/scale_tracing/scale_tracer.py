"""One forward pass in which scale variables travel along with the values.

The pass runs the model for real, and so knows every operand of every operation, constants and repeated
operands included; it needs neither AIMET's graph nor a traced module. The result is a `Trace`: the variables
of each layer's input and output channels, the parameters that must scale along, and the readers of each
activation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from eq_aimet.aimet.equalization.scale_tracing.module_rules import (
    channel_dim,
    is_whole,
    over_shape,
    pass_layer,
    pass_module,
)
from eq_aimet.aimet.equalization.scale_tracing.operation_calls import READS_NO_VALUES, Call, Invariant, Result
from eq_aimet.aimet.equalization.scale_tracing.operation_rules import apply_rule
from eq_aimet.aimet.equalization.scale_tracing.scale_trace import Step, Trace, Value
from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Threshold
from eq_aimet.symmetry.calling import call_model, tensors_in
from eq_aimet.symmetry.layers import is_layer

__all__ = ["trace_scales"]


def trace_scales(model: torch.nn.Module, inputs: Any) -> Trace:
    """Return the trace of one forward pass in eval mode; the model does not change.

    Args:
        model: The model.
        inputs: The model's inputs, on the model's device: a tensor, or a tuple or dictionary of inputs.
    """
    tracer = _Tracer(model)
    for tensor in tensors_in(inputs):
        tracer.values[tensor] = Value(None, "it is the model's input")
    with _eval_mode(model), torch.no_grad(), tracer.watching(), tracer:
        output = call_model(model, inputs)
    tracer.finish(output)
    return tracer.trace


@contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Tracer(TorchDispatchMode):
    """Follows the scale variables of a model through one forward pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.trace = Trace({module: name for name, module in model.named_modules()})
        self.variables = self.trace.variables
        self.values: Any = WeakIdKeyDictionary()
        self._owners: dict[int, tuple[torch.nn.Module, str, torch.Tensor]] = {}
        for module in model.modules():
            scaled = {**module._parameters, **module._buffers}
            for name in set(scaled) - module._non_persistent_buffers_set:
                tensor = scaled[name]
                if tensor is not None:
                    self._owners.setdefault(_storage(tensor), (module, name, tensor))
        self._overwritten: set[int] = set()
        self._inside: list[torch.nn.Module] = []
        self._wholes: list[torch.nn.Module] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the modules while the model runs."""
        with ExitStack() as handles:
            for module in self.trace.names:
                before = module.register_forward_pre_hook(self._begin, with_kwargs=True)
                after = module.register_forward_hook(self._end, with_kwargs=True, prepend=True)
                handles.callback(before.remove)
                handles.callback(after.remove)
            yield

    def _begin(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inside.append(module)
        if self._wholes or is_whole(module):
            self._wholes.append(module)

    def _end(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Any, output: Any) -> None:
        self._inside.pop()
        self.trace.runs[module] += 1
        if self._wholes:
            self._wholes.pop()
            if not self._wholes:
                with _disable_current_modes():
                    self._pass_whole(module, next(iter([*args, *kwargs.values()])), output)

    def _pass_whole(self, module: torch.nn.Module, tensor: torch.Tensor, output: torch.Tensor) -> None:
        value = self.values.get(tensor)
        ids = None if value is None else value.ids
        if not is_layer(module):
            for own in (*module._parameters.values(), *module._buffers.values()):
                if own is not None:
                    self.use(own)
        if is_layer(module):
            read, written = pass_layer(self.variables, module, ids)
            if ids is None:
                self.variables.fix(read, "it reads a constant" if value is None else value.reason)
            self.trace.layers.append((module, read, written))
            result = Value(over_shape(written, channel_dim(module, output.dim()), output.shape))
        elif value is None:
            return
        elif ids is None:
            result = Value(None, value.reason)
        else:
            passed = pass_module(self, module, ids, output.shape)
            if isinstance(passed, str):
                result = self._stopped([value], self._describe_module(module), passed)
            else:
                result = Value(passed)
        self.values[output] = result
        self.trace.steps.append(Step(module, module, () if value is None else (value,), (result,)))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, then follow it."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not self._wholes:
            name = func.overloadpacket.__name__
            self._follow(Call(self, func, name.rstrip("_"), args, kwargs, output))
        return output

    def _follow(self, call: Call) -> None:
        tensors = [leaf for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(call.output) if isinstance(leaf, torch.Tensor)]
        read = [value for value in map(self.values.get, tensors) if value is not None]
        if call.name in READS_NO_VALUES:
            return
        changes = call.function._schema.is_mutable
        if not read:
            self._note_constants(tensors, outputs, changes)
            return
        for tensor in tensors:
            if self.values.get(tensor) is None:
                self.use(tensor)
        written = self._written(call, read, outputs)
        former = self.values.get(tensors[0]) if changes else None
        for tensor, value in zip(outputs, written, strict=True):
            self.values[tensor] = value
        inside = self._inside[-1] if self._inside else None
        self.trace.steps.append(Step(None, inside, tuple(read), tuple(written)))
        if changes and (former is None or former.ids is not written[0].ids):
            self._changed_in_place(tensors[0], written[0])

    def _written(self, call: Call, read: list[Value], outputs: list[torch.Tensor]) -> list[Value]:
        if all(value.ids is None for value in read):
            return [Value(None, read[0].reason) for _ in outputs]
        result: Result = apply_rule(call)
        if isinstance(result, Invariant):
            return [Value(None, "it does not depend on the scale") for _ in outputs]
        if isinstance(result, str):
            reason = self._stopped(read, self._describe(call.name), result).reason
            return [Value(None, reason) for _ in outputs]
        parts = result if isinstance(result, list) else [result]
        values = [Value(part) for part in parts]
        # Further outputs are positions of the largest entries.
        return values + [Value(None, "it holds positions")] * (len(outputs) - len(values))

    def _stopped(self, read: list[Value], operation: str, reason: str) -> Value:
        whole = f"{operation} {reason or 'does not commute with a positive scale'}"
        for value in read:
            if value.ids is not None:
                self.variables.fix(value.ids, whole)
        return Value(None, whole)

    def _describe(self, name: str) -> str:
        module = self._inside[-1] if self._inside else None
        if module is not None and self.trace.names.get(module) and not list(module.children()):
            return self._describe_module(module)
        return f"the operation {name!r}"

    def _describe_module(self, module: torch.nn.Module) -> str:
        return f"{type(module).__name__} `{self.trace.names[module]}`"

    def _note_constants(
        self, tensors: list[torch.Tensor], outputs: list[torch.Tensor], changes: bool
    ) -> None:
        views = {_storage(output) for output in outputs}
        for tensor in tensors:
            if changes:
                self._overwritten.add(_storage(tensor))
            elif _storage(tensor) not in views:
                self.use(tensor)

    def _changed_in_place(self, tensor: torch.Tensor, value: Value) -> None:
        """Stop the scales of all tensors that share storage with one that was overwritten."""
        storage = _storage(tensor)
        self._overwritten.add(storage)
        for other in list(self.values):
            if other is not tensor and _storage(other) == storage:
                reason = "a part of it is overwritten in place"
                for ids in (self.values[other].ids, value.ids):
                    if ids is not None:
                        self.variables.fix(ids, reason)

    def finish(self, output: Any) -> None:
        """Fix what the model returns, and what would have to scale along in several places."""
        self.trace.output = output
        for tensor in tensors_in(output):
            value = self.values.get(tensor)
            if value is not None:
                self.trace.outputs.add(value)
                if value.ids is not None:
                    self.variables.fix(value.ids, "it is an output of the model")
        for threshold, ids in self.variables.thresholds:
            owner = getattr(threshold.module, threshold.name)
            if self.trace.uses[id(owner)] > 1:
                name = f"{self.trace.names[threshold.module]}.{threshold.name}".lstrip(".")
                reason = f"`{name}`, which would have to scale along, is used in several places"
                self.variables.fix(torch.from_numpy(ids), reason)

    def use(self, tensor: torch.Tensor) -> None:
        """Note that an operation or a module reads a parameter or buffer, or a part of one."""
        owner = self._owners.get(_storage(tensor))
        if owner is not None:
            self.trace.uses[id(owner[2])] += 1

    def ids_of(self, tensor: Any) -> torch.Tensor | None:
        """Return the scale variables of an activation, or `None` for anything else."""
        value = self.values.get(tensor) if isinstance(tensor, torch.Tensor) else None
        return None if value is None else value.ids

    def keeps_scale(self, tensor: Any) -> str:
        """Return why the scale of an activation stays 1, or an empty string for a constant."""
        value = self.values.get(tensor)
        return "" if value is None else value.reason

    def scale_along(self, constant: torch.Tensor, ids: torch.Tensor) -> str:
        """Let a constant scale along; return why it cannot, or an empty string."""
        owner = self._owners.get(_storage(constant))
        if owner is None:
            if not constant.count_nonzero():
                return ""
            return "joins it with a constant, which does not scale along"
        module, name, tensor = owner
        if _storage(tensor) in self._overwritten or not tensor.is_floating_point():
            return f"joins it with `{name}`, which the model itself changes"
        offset = int(constant.storage_offset()) - int(tensor.storage_offset())
        part = Threshold(module, name, tuple(constant.shape), constant.stride(), offset)
        self.variables.scale_along(part, ids)
        return ""


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
