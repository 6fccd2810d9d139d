"""The means of the layers' outputs, measured and corrected while a simulation runs on data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.utils import in_eval_mode, remove_all_quantizers, remove_output_quantizers

from eq_aimet.aimet.internals import observe
from eq_aimet.aimet.rounding.biased_layers import BiasedLayer, channel_axis, channel_means
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.calling import tensors_in

__all__ = ["DataRuns"]

Forward = Callable[[torch.nn.Module], Any]
_Calls = list[tuple[torch.Tensor, int]]  # for each call of a layer: the channels' means, of how many values
_Hook = Callable[[torch.nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]

# If the same images come in another order, their float64 sum changes by less than this share.
_ROUNDING = 1e-9


class DataRuns:
    """Runs of a simulation on the user's data, each compared with a first run without quantizers.

    Args:
        sim: The simulation.
        forward: Runs the model on the data.
        layers: The layers to measure and to correct.

    Raises:
        InvalidArgumentError: If `forward` fails, runs no layer, or gives values that are not finite.
    """

    def __init__(self, sim: QuantizationSimModel, forward: Forward, layers: list[BiasedLayer]) -> None:
        self._model, self._forward = sim.model, forward
        self._layers = {layer.module: layer for layer in layers}
        self._images: list[float] = []
        self._reference: dict[torch.nn.Module, _Calls] = {}
        with remove_all_quantizers(sim.model):
            self._images = self._run(_recording(self._reference))
        self._check_reference()

    @property
    def ordered_layers(self) -> list[BiasedLayer]:
        """The layers that ran, in the order in which they ran first."""
        return [self._layers[module] for module in self._reference]

    def errors(self) -> dict[str, torch.Tensor]:
        """Return, by the layer's name, the error of the simulated mean of each output channel.

        Raises:
            InvalidArgumentError: If `forward` gives other images than in the first run.
        """
        means: dict[torch.nn.Module, _Calls] = {}
        self._compare(self._run(_recording(means)), means)
        return {
            self._layers[module].name: _overall(calls) - _overall(self._reference[module])
            for module, calls in means.items()
        }

    def correct(self, *, again: bool = False) -> None:
        """Correct the biases, in place, while the simulation runs.

        Each call of a layer gives a correction. The layer gets the mean correction over all its calls; for
        calls that did not run yet, the layer's earlier correction is used. The call is repeated with the new
        bias, so that the next layer sees a corrected input.

        Args:
            again: Whether the layers have a correction already.

        Raises:
            InvalidArgumentError: If `forward` gives other images than in the first run.
        """
        needed: dict[torch.nn.Module, _Calls] = {}
        formers = {module: layer.change for module, layer in self._layers.items()}

        def hook(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            calls, layer = needed.setdefault(module, []), self._layers[module]
            reference = self._reference.get(module, [])
            if len(calls) == len(reference):
                raise _other_images()
            means, count = _means(module, inputs, named, output)
            calls.append((layer.change + reference[len(calls)][0] - means, count))
            to_come = [(formers[module], count) for _, count in reference[len(calls) :]] if again else []
            layer.set_change(_overall([*calls, *to_come]))
            return module.forward(*inputs, **named)

        self._compare(self._run(hook), needed)

    def calibrate_outputs(self) -> None:
        """Compute the encodings of all outputs again, in place, as AIMET does; frozen encodings stay."""
        with ExitStack() as contexts:
            for module in self._model.modules():
                if isinstance(module, BaseQuantizationMixin):
                    for quantizer in module.output_quantizers:
                        if isinstance(quantizer, QuantizerBase) and quantizer.is_overwrite_allowed():
                            contexts.enter_context(observe(quantizer))
            self._run(None)

    def _run(self, hook: _Hook | None) -> list[float]:
        """Run `forward` with a hook on each layer; return the sums of the images that the model got."""
        sums: list[float] = []

        def note(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            sums.extend(float(tensor.detach().double().sum()) for tensor in tensors_in((inputs, named)))

        with ExitStack() as undos:
            undos.callback(self._model.register_forward_pre_hook(note, with_kwargs=True).remove)
            for module in self._layers if hook is not None else ():
                assert hook is not None
                undos.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            undos.enter_context(in_eval_mode(self._model))
            undos.enter_context(torch.no_grad())
            try:
                self._forward(self._model)
            except InvalidArgumentError:
                raise
            except Exception as error:
                device = next(self._model.parameters()).device
                raise InvalidArgumentError(
                    "forward",
                    received=f"a function that fails with {type(error).__name__}: {error}",
                    expected=f"a function that runs the model, which is on {device}, on data on its device",
                    remedy="Try it in `sim.compute_encodings(forward)`, which calls it in the same way.",
                ) from error
        return sums

    def _compare(self, images: list[float], means: dict[torch.nn.Module, _Calls]) -> None:
        """Check that a run saw the images of the first run, in any order."""
        counts = [
            {module: sum(count for _, count in calls) for module, calls in run.items()}
            for run in (means, self._reference)
        ]
        size = sum(map(abs, self._images))
        if counts[0] != counts[1] or abs(sum(images) - sum(self._images)) > _ROUNDING * size:
            raise _other_images()

    def _check_reference(self) -> None:
        if not self._reference:
            raise InvalidArgumentError(
                "forward",
                received="a function that runs no quantized layer",
                expected="a function that runs the model it is given",
                remedy="Call the argument inside: `lambda model: model(images)`.",
            )
        for module, calls in self._reference.items():
            if not bool(torch.isfinite(_overall(calls)).all()):
                raise InvalidArgumentError(
                    "forward",
                    received=f"images on which the output of `{self._layers[module].name}` is not finite "
                    "(NaN or infinity)",
                    expected="images with finite values",
                    remedy="Remove the images that hold NaN or infinity.",
                )


def _overall(calls: _Calls) -> torch.Tensor:
    """Return the mean of each channel over all calls, of shape (channels,)."""
    counts = [count for _, count in calls]
    weighted = torch.stack([means * count for means, count in calls])
    return weighted.sum(0) / sum(counts)


def _recording(means: dict[torch.nn.Module, _Calls]) -> _Hook:
    """Return a hook that notes the mean of each channel of each call's output."""

    def record(module: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        means.setdefault(module, []).append(_means(module, inputs, named, output))

    return record


def _means(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Return the mean of each channel of a layer's output before it is rounded, and the values per mean.

    A bias cannot correct the rounding of an output that hardly varies, so the mean does not include this
    rounding.
    """
    if any(quantizer is not None for quantizer in module.output_quantizers):
        with remove_output_quantizers(module):
            output = module.forward(*inputs, **named)
    means = channel_means(output, channel_axis(module))
    return means, output.numel() // means.numel()


def _other_images() -> InvalidArgumentError:
    return InvalidArgumentError(
        "forward",
        received="a function that gives the model other images on each call",
        expected="the same images on each call, since the means with and without quantizers are compared",
        remedy="Take the images from a list, or seed the loader inside `forward`.",
    )
