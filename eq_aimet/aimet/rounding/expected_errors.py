"""The error of each layer's mean output, computed from batch-norm statistics instead of data.

A batch norm gives a layer's output the mean β and the deviation |γ|. The ReLU behind it clips this normal
distribution (Nagel et al., arXiv 1906.04721, appendix C). Here the model itself computes the inputs of the
next layers from evenly spaced quantiles of these distributions. The result therefore includes the effect of
sums, poolings, other activations, and the padding of a convolution.
"""

from __future__ import annotations

from contextlib import ExitStack
from copy import copy
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.utils import in_eval_mode, remove_all_quantizers

from eq_aimet.aimet.output_statistics import OutputStatistics, is_outdated, output_statistics
from eq_aimet.aimet.rounding.biased_layers import BiasedLayer, channel_axis, channel_means
from eq_aimet.errors import InvalidArgumentError

__all__ = ["expected_errors", "normal_quantiles"]

_IMAGES = 16


def expected_errors(
    sim: QuantizationSimModel, layers: list[BiasedLayer]
) -> tuple[dict[torch.nn.Module, torch.Tensor], dict[torch.nn.Module, str]]:
    """Return the expected error of each output channel's mean that comes from rounding the weights.

    Args:
        sim: The simulation; the function does not change it.
        layers: The layers whose errors are computed.

    Returns:
        The errors by layer, each of shape (out,), and the other layers, each with the reason.

    Raises:
        InvalidArgumentError: If no layer has statistics, or the model cannot run on made-up inputs.
    """
    statistics = _statistics(sim.model)
    differences = {layer.module: _rounding(layer.module) for layer in layers}
    found: dict[torch.nn.Module, list[torch.Tensor]] = {}

    def substitute(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        seed = list(statistics).index(module)
        return normal_quantiles(statistics[module], output, axis=_output_axis(module), seed=seed)

    def look_at(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.setdefault(module, []).append(_error(module, differences[module], inputs[0]))

    with ExitStack() as undos:
        for module in statistics:
            undos.callback(module.register_forward_hook(substitute).remove)
        for module in differences:
            undos.callback(module.register_forward_pre_hook(look_at).remove)
        undos.enter_context(remove_all_quantizers(sim.model))
        undos.enter_context(in_eval_mode(sim.model))
        undos.enter_context(torch.no_grad())
        _run(sim)
    errors = {module: torch.stack(calls).mean(0) for module, calls in found.items()}
    known = {module: error for module, error in errors.items() if bool(torch.isfinite(error).all())}
    reasons = {
        module: "it reads the network's input, of which no statistics tell"
        if module in errors
        else "it does not run"
        for module in differences
        if module not in known
    }
    return known, reasons


def normal_quantiles(
    statistics: OutputStatistics, output: torch.Tensor, *, axis: int, seed: int
) -> torch.Tensor:
    """Return evenly spaced quantiles of each channel's N(mean, σ) in random places, shaped as `output`.

    Example:
        >>> statistics = OutputStatistics((1.0,), (2.0,), ())
        >>> values = normal_quantiles(statistics, torch.empty(4, 1, 50, 50), axis=1, seed=0)
        >>> abs(float(values.mean()) - 1.0) < 1e-4, abs(float(values.std()) - 2.0) < 0.01
        (True, True)
    """
    moved = output.movedim(axis, 0)  # [channels, …]
    channels, count = moved.shape[0], moved[0].numel()
    levels = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(channels, count, generator=generator).argsort(1)
    means = torch.tensor(statistics.means, dtype=torch.float64)[:, None]
    deviations = torch.tensor(statistics.deviations, dtype=torch.float64)[:, None]
    values = (means + deviations * levels[places]).reshape(moved.shape)
    return values.to(output.device, output.dtype).movedim(0, axis)


def _statistics(model: torch.nn.Module) -> dict[torch.nn.Module, OutputStatistics]:
    """Return the statistics of the layers whose weights did not change since then.

    Raises:
        InvalidArgumentError: If there are no statistics.
    """
    found = {
        module: statistics
        for module in model.modules()
        if isinstance(module, BaseQuantizationMixin)
        and (statistics := output_statistics(module)) is not None
        and not is_outdated(module)
    }
    if not found:
        raise InvalidArgumentError(
            "forward",
            received="no function, and a simulation in which no layer has batch-norm statistics",
            expected="data to measure the errors on, or the statistics of batch norms",
            remedy="Give `correct_bias(sim, forward)` the function of `sim.compute_encodings`. Or fold the "
            "batch norms by `equalize_equivariant`, or by AIMET inside `equivariant_hooks`, before AIMET "
            "builds the simulation. Training after the fold makes the statistics outdated.",
        )
    return found


def _rounding(module: Any) -> torch.Tensor:
    """Return the quantized weight minus the weight."""
    weight = module.weight.detach()
    with torch.no_grad():
        quantized = module.param_quantizers["weight"](weight)
    return quantized.as_subclass(torch.Tensor) - weight.as_subclass(torch.Tensor)


def _error(module: Any, difference: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the mean output of a layer with the weight `difference` on inputs of the means of `values`."""
    axis = channel_axis(module)
    values = values.as_subclass(torch.Tensor)
    shape = [1] * -axis
    means = channel_means(values, axis).reshape(-1, *shape[1:])  # [channels, 1 …]
    constant = means.expand(1, -1, *values.shape[values.dim() + axis + 1 :])
    twin = copy(module.get_original_module())
    twin._parameters = {"weight": difference.double(), "bias": None}
    return channel_means(twin.forward(constant), axis)


def _output_axis(module: torch.nn.Module) -> int:
    return -1 if isinstance(module, torch.nn.Linear) else 1


def _run(sim: QuantizationSimModel) -> None:
    """Run the model on NaN; NaN marks each value that depends on the network's own input."""
    parameter = next(sim.model.parameters())
    products = sim.connected_graph.get_all_products().values()
    shapes = [list(product.shape) for product in products if product.is_model_input]
    inputs = [
        torch.full([_IMAGES, *shape[1:]], torch.nan, dtype=parameter.dtype, device=parameter.device)
        for shape in shapes
    ]
    try:
        sim.model(*inputs)
    except Exception as error:
        raise InvalidArgumentError(
            "forward",
            received=f"no function, and a model that fails on made-up inputs of shapes {shapes} with "
            f"{type(error).__name__}: {error}",
            expected="a model that runs on floating-point inputs of these shapes, in a batch of any size",
            remedy="Give `correct_bias(sim, forward)` the function of `sim.compute_encodings`.",
        ) from error
