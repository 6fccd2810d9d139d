"""The last check: whether equalization kept the function of a model, and otherwise the layer at fault.

The scales are exact in theory. A wrong rule for one operation would change the function without an error
message. So the outputs before and after are compared in float64: for one image of the given input, for 8
times the image, and for -¼ of the image. The comparison comes before the high-bias fold and does not cover
it. That fold changes the function by design if a value lies beyond three standard deviations
(`high_bias_fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from eq_aimet.aimet.equalization.scale_tracing.module_rules import channel_dim
from eq_aimet.errors import EqualizationError
from eq_aimet.symmetry.calling import call_model, map_tensors, tensors_in
from eq_aimet.symmetry.layers import is_layer

__all__ = ["FunctionChangedError", "FunctionCheck"]

_FACTORS = (1.0, 8.0, -0.25)  # of the given input
_TOLERANCE = 1e-5
_TOLERANCE_WITHOUT_DOUBLE = 1e-4
# Equalization rounds each weight once; the model's own float32 arithmetic rounds about as often.
_ROUNDINGS = 20

Signatures = dict[torch.nn.Module, torch.Tensor]


class FunctionChangedError(Exception):
    """The function of the model has changed; the signatures tell in which layer.

    Args:
        change: The largest relative difference of an output.
        signatures: The signatures of the layers of the changed model (`FunctionCheck.signatures`).
    """

    def __init__(self, change: float, signatures: Signatures) -> None:
        super().__init__(change, signatures)
        self.change, self.signatures = change, signatures


class FunctionCheck:
    """Compares the outputs of a model with its outputs when this object was made.

    The first image of the batch is enough. If the model takes a batch of another size, the image, 8 times the
    image and -¼ of it make one batch; otherwise the model runs three times.

    Args:
        model: The model, which stays as it is.
        inputs: The inputs of one forward pass.
    """

    def __init__(self, model: torch.nn.Module, inputs: Any) -> None:
        self._model = model
        self._stacked = _is_batch(inputs)
        self._inputs = [_stack(inputs)] if self._stacked else _scaled(inputs)
        self._dtype: torch.dtype | None = torch.float64
        tolerance = _TOLERANCE
        try:
            self._before = self._outputs(self._dtype)
        except Exception:  # noqa: BLE001
            self._stacked, self._inputs = False, _scaled(inputs)
            try:
                self._before = self._outputs(self._dtype)
            except Exception:  # noqa: BLE001
                # Some models hold constants of one precision and can't run in another.
                self._dtype, tolerance = None, _TOLERANCE_WITHOUT_DOUBLE
                self._before = self._outputs(self._dtype)
        # The size of the model's rounding in its own precision.
        rounding = 0.0 if self._dtype is None else _largest_change(self._before, self._outputs(None))
        self._tolerance = max(tolerance, _ROUNDINGS * rounding)

    def __call__(self) -> None:
        """Compare.

        Raises:
            FunctionChangedError: If an output differs by more than rounding.
        """
        change = _largest_change(self._before, self._outputs(self._dtype))
        if change > self._tolerance:
            raise FunctionChangedError(change, self.signatures(self._model.modules()))

    def signatures(self, modules: Iterable[torch.nn.Module]) -> Signatures:
        """Return for each layer and norm a number per output channel that no positive scale changes."""
        found: Signatures = {}

        def note(module: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
            if module not in found:
                found[module] = _signature(output, channel_dim(module, output.dim()))

        with ExitStack() as handles:
            for module in modules:
                if is_layer(module) or isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    handles.callback(module.register_forward_hook(note).remove)
            self._outputs(self._dtype)
        return found

    def explain(
        self,
        error: FunctionChangedError,
        folds: dict[torch.nn.Module, torch.nn.Module],
        names: dict[torch.nn.Module, str],
        partners: Callable[[torch.nn.Module], str],
        plugins: Iterable[str] = (),
    ) -> EqualizationError:
        """Return the error that names the first layer at fault; the model is as it was before.

        Args:
            error: The error that the comparison raised.
            folds: For each layer the batch norm that was folded into it.
            names: The dotted name of each module.
            partners: A function that returns the layers with which a layer was scaled.
            plugins: The plugins that added CLS sets.
        """
        before = self.signatures(names)
        place = "The layers themselves compute the same; an operation after the last layer does not."
        for layer, signature in error.signatures.items():
            former = before.get(folds.get(layer, layer))
            if former is not None and not torch.allclose(former, signature, rtol=1e-3, atol=1e-4):
                place = f"The first layer at fault is `{names.get(layer, '?')}`{partners(layer)}."
                break
        return EqualizationError(
            f"Equalization would have changed what the model computes by {error.change:.1e} of its largest "
            f"output, so it was undone, and the model is as it was. {place} {_remedy(list(plugins))}"
        )

    @torch.no_grad()
    def _outputs(self, dtype: torch.dtype | None) -> list[torch.Tensor]:
        devices = [tensor.device for tensor in tensors_in(self._inputs) if tensor.is_cuda]
        outputs: list[torch.Tensor] = []
        with _copied(self._model, dtype), torch.random.fork_rng(devices=devices):
            for inputs in self._inputs:
                torch.manual_seed(0)  # A model that draws random numbers draws the same ones each time.
                output = call_model(self._model, map_tensors(partial(_copy, dtype=dtype), inputs))
                for tensor in tensors_in(output):
                    values = tensor.detach().double().cpu()
                    # Each image by itself, as the outputs for a small image are small.
                    rows = self._stacked and values.dim() > 0 and len(values) == len(_FACTORS)
                    outputs += values.unbind() if rows else [values]
        return outputs


def _is_batch(inputs: Any) -> bool:
    """Return whether all inputs have a first dimension of one size."""
    firsts = {tuple(tensor.shape[:1]) for tensor in tensors_in(inputs)}
    return len(firsts) == 1 and () not in firsts


def _stack(inputs: Any) -> Any:
    """Return one batch: the first image times each factor."""
    return map_tensors(lambda tensor: torch.cat([_times(tensor[:1], factor) for factor in _FACTORS]), inputs)


def _scaled(inputs: Any) -> list[Any]:
    """Return the inputs times each factor."""
    return [map_tensors(partial(_times, factor=factor), inputs) for factor in _FACTORS]


def _times(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    return tensor * factor if tensor.is_floating_point() else tensor


def _remedy(plugins: list[str]) -> str:
    if plugins:
        return (
            f"`eq_aimet_cls_sets` of {' and '.join(f'`{plugin}`' for plugin in plugins)} has added CLS sets. "
            "Let the plugin add sets only where nothing but ReLU lies between the layers."
        )
    return (
        "Please report this model as a fault of eq_aimet; until it is mended, the model can be quantized "
        "without equalization."
    )


def _copy(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.detach().to(dtype if dtype and tensor.is_floating_point() else tensor.dtype, copy=True)


@contextmanager
def _copied(model: torch.nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Put the model into eval mode with copies of its parameters and buffers, and back again."""
    copies: dict[int, torch.Tensor] = {}
    held = []
    for module in model.modules():
        held.append((module, module.training, module._parameters.copy(), module._buffers.copy()))
    try:
        for module, _, parameters, buffers in held:
            module.training = False
            for tensor in (*parameters.values(), *buffers.values()):
                if tensor is not None and id(tensor) not in copies:
                    copies[id(tensor)] = _copy(tensor, dtype)
            for name, tensor in parameters.items():
                if tensor is not None:
                    module._parameters[name] = torch.nn.Parameter(copies[id(tensor)], False)
            module._buffers.update({k: copies.get(id(tensor)) for k, tensor in buffers.items()})
        yield
    finally:
        for module, training, parameters, buffers in held:
            module.training = training
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _signature(output: torch.Tensor, dim: int) -> torch.Tensor:
    values = output.detach().double().movedim(dim, 0).flatten(1)  # [channels, entries]
    weights = torch.linspace(-1, 1, values.shape[1], dtype=torch.float64, device=values.device)
    return (values @ weights / values.abs().sum(1).clamp(min=1e-300)).cpu()


def _largest_change(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    changes = [0.0]
    for old, new in zip(before, after, strict=True):
        new = new.to(old)
        finite = old.isfinite()
        largest = old[finite].abs().max() if finite.any() else torch.tensor(0.0)
        if old.shape != new.shape or not new[finite].isfinite().all():
            return float("inf")
        if finite.any():
            difference = (new - old)[finite].abs().max()
            changes.append(float(difference / largest.clamp(min=1e-300)) if difference > 0 else 0.0)
    return max(changes)
