"""Activation ranges from batch-norm statistics instead of data: `calibrate_without_data`.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721,
section 5: the range of a layer's output is β ± n|γ| of the batch norm that was folded into it, with n = 6.
AIMET computes the encodings as ever; what its quantizers see is made up from the statistics.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.utils import remove_all_quantizers

from eq_aimet.aimet.equalization.argument_checks import check_input
from eq_aimet.aimet.output_statistics import OutputStatistics, is_outdated, output_statistics
from eq_aimet.aimet.simulation.data_free_report import CalibrationReport, Origin, QuantizedRange
from eq_aimet.aimet.simulation.export_readiness import check_simulation
from eq_aimet.aimet.simulation.sampling import farthest_output, input_sample, linear_bound, normal_output
from eq_aimet.aimet.snapshot import Snapshot
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry import is_layer

__all__ = ["calibrate_without_data"]

logger = logging.getLogger(__name__)

# The forward passes. The highest and the lowest values give the ends of what sums, pooling and activations
# make of them; then once more, with what layers without statistics make of such inputs at most; and random
# values, for modules that are not monotonous and for AIMET's schemes that look at more than the ends.
_PASSES = ("highest", "lowest", "highest bound", "lowest bound", "random", "random")


def calibrate_without_data(
    sim: QuantizationSimModel,
    dummy_input: Any,
    *,
    input_range: tuple[float, float] = (0.0, 1.0),
    standard_deviations: float = 7.0,
) -> CalibrationReport:
    """Compute all encodings from the model's batch-norm statistics, in place; stands for `compute_encodings`.

    The output of each layer with statistics ranges over mean ± n·σ, channel by channel. That of a
    convolution or linear layer without them, such as a last one, ranges over all that its weight can make of
    its inputs. Whatever lies between the layers (activations, sums, pooling, masks …) is computed from that
    by the model itself. Weights get AIMET's usual encodings; frozen encodings stay.

    Args:
        sim: AIMET's simulation of a model whose batch norms were folded by `equalize_equivariant`, or by
            AIMET's functions inside `equivariant_hooks`. Batch norms that were not folded count, too.
        dummy_input: An input, or a tuple of inputs, of which only the shape matters.
        input_range: The lowest and highest value of the model's inputs, which no statistics tell; as given,
            that of images which are not normalized.
        standard_deviations: n. Fewer clip more, more round more coarsely.

    Returns:
        The range of each activation encoding, and where it comes from.

    Raises:
        InvalidArgumentError: If `sim` isn't AIMET's, no layer has statistics or a layer was changed after
            they were taken, the model does not take the input, or the range or n is not possible. The
            simulation is as it was before.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import calibrate_without_data
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8)).eval()
        >>> x = torch.empty(1, 3, 9, 9)
        >>> sim = QuantizationSimModel(model, dummy_input=x)
        >>> report = calibrate_without_data(sim, x, input_range=(-1.0, 1.0))
        >>> report.layers
        ('1',)
    """
    check_simulation(sim)
    limit = _check_standard_deviations(standard_deviations)
    lowest, highest = _check_input_range(input_range)
    statistics = _find_statistics(sim.model)
    with remove_all_quantizers(sim.model):
        check_input(sim.model, dummy_input)
    outputs = _Outputs(sim.model, statistics, limit)
    device = next(sim.model.parameters()).device
    snapshot = Snapshot(sim.model)
    empty = [
        quantizer
        for quantizer in sim.model.modules()
        if isinstance(quantizer, QuantizerBase) and not quantizer.is_initialized()
    ]

    def run_on_statistics(model: torch.nn.Module) -> None:
        with outputs:
            for number, kind in enumerate(_PASSES):
                outputs.number, outputs.kind = number, kind
                sample = _made_up(dummy_input, lowest, highest, device, seed=number)
                if isinstance(sample, dict):
                    model(**sample)
                else:
                    model(*sample) if isinstance(sample, list | tuple) else model(sample)

    try:
        sim.compute_encodings(run_on_statistics)
    except BaseException:
        snapshot.restore()
        for quantizer in empty:
            # AIMET takes a range that was ever written for an encoding, unless it is registered anew.
            for name, parameter in list(quantizer.named_parameters(recurse=False)):
                quantizer.register_quantization_parameter(name, parameter)
        raise
    report = CalibrationReport(
        limit,
        (lowest, highest),
        tuple(name for name, module in sim.model.named_modules() if module in statistics),
        tuple(name for name, module in sim.model.named_modules() if module in outputs.bounded),
        _ranges(sim.model, statistics, outputs.bounded),
    )
    logger.info("Calibrated without data:\n%s", report)
    return report


class _Outputs:
    """While entered, gives layers of a simulation made-up outputs, right before their output quantizers.

    Attributes:
        number: The number of the forward pass.
        kind: What it gives the layers.
        bounded: The convolutions and linear layers without statistics.
    """

    def __init__(
        self, model: torch.nn.Module, statistics: dict[torch.nn.Module, OutputStatistics], limit: float
    ) -> None:
        self.number, self.kind = 0, _PASSES[0]
        self.statistics = statistics
        self.limit = limit
        self.bounded = tuple(
            module
            for module in model.modules()
            if isinstance(module, BaseQuantizationMixin) and is_layer(module) and module not in statistics
        )
        self._order = {module: number for number, module in enumerate(statistics)}
        self._seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._undos = ExitStack()

    def __enter__(self) -> _Outputs:
        for module in (*self.statistics, *self.bounded):
            quantizers: Any = module.output_quantizers
            make = self._by_statistics if module in self.statistics else self._by_bounds
            former = quantizers[0]
            quantizers[0] = _Substitute(former, make(module))
            self._undos.callback(quantizers.__setitem__, 0, former)
        for module in self.bounded:
            self._undos.callback(module.register_forward_pre_hook(self._look_at).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._undos.close()

    @property
    def _sign(self) -> int:
        """1 where the highest values are due, -1 where the lowest are, 0 where random ones are."""
        return {"highest": 1, "lowest": -1}.get(self.kind.split()[0], 0)

    def _by_statistics(self, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        statistics, axis = self.statistics[module], _channel_axis(module)

        def output_of(output: torch.Tensor) -> torch.Tensor:
            if self._sign:
                return farthest_output(statistics, output, self._sign * self.limit, axis=axis)
            seed = self.number + len(_PASSES) * self._order[module]
            return normal_output(statistics, output, self.limit, axis=axis, seed=seed)

        return output_of

    def _by_bounds(self, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def output_of(output: torch.Tensor) -> torch.Tensor:
            if "bound" not in self.kind:
                return output
            farthest, nearest = self._seen[module][:: -self._sign]
            return linear_bound(module.get_original_module(), farthest, nearest)  # type: ignore[operator]

        return output_of

    def _look_at(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Note the lowest and highest value of each input channel."""
        if "bound" in self.kind:  # made of bounds in part, which would add up from layer to layer
            return
        tensor, axis = inputs[0].detach().as_subclass(torch.Tensor), _channel_axis(module)
        others = [place for place in range(tensor.dim()) if place != axis % tensor.dim()]
        low, high = tensor.amin(others, keepdim=True), tensor.amax(others, keepdim=True)
        if module in self._seen:
            low, high = torch.minimum(low, self._seen[module][0]), torch.maximum(high, self._seen[module][1])
        # [images, channels, …] again, so that the layer takes them
        self._seen[module] = low.expand_as(tensor), high.expand_as(tensor)


class _Substitute(torch.nn.Module):
    """In the place of an output quantizer: hands it something else than what the layer computed."""

    def __init__(
        self, quantizer: torch.nn.Module | None, output_of: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.output_of = output_of

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        """Return the substitute, quantized if there is a quantizer."""
        substitute = self.output_of(output)
        return substitute if self.quantizer is None else self.quantizer(substitute)


def _channel_axis(module: torch.nn.Module) -> int:
    return -1 if isinstance(module, torch.nn.Linear) else 1


def _made_up(value: Any, lowest: float, highest: float, device: torch.device, *, seed: int) -> Any:
    """Return the input with all floating-point tensors replaced by samples of the input range."""
    if isinstance(value, torch.Tensor):
        value = value.to(device)
        return input_sample(value, lowest, highest, seed=seed) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _made_up(part, lowest, highest, device, seed=seed) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_made_up(part, lowest, highest, device, seed=seed) for part in value)
    return value


def _find_statistics(model: torch.nn.Module) -> dict[torch.nn.Module, OutputStatistics]:
    """Return what is known of the quantized layers' outputs.

    Raises:
        InvalidArgumentError: If nothing is, or a layer's statistics do not belong to its weights.
    """
    found: dict[torch.nn.Module, OutputStatistics] = {}
    for name, module in model.named_modules():
        statistics = output_statistics(module) if isinstance(module, BaseQuantizationMixin) else None
        if statistics is None:
            continue
        fault = ""
        if is_outdated(module):
            fault = "whose weights were changed after its statistics were taken"
        elif not all(map(math.isfinite, (*statistics.means, *statistics.deviations))):
            fault = "whose statistics are not finite"
        if fault:
            raise InvalidArgumentError(
                "sim",
                received=f"a layer `{name}` {fault}",
                expected="layers as the equalization left them",
                remedy="Equalize with `equalize_equivariant`, or inside `equivariant_hooks`; after training "
                "or pruning calibrate on data with `sim.compute_encodings`.",
            )
        found[module] = statistics
    if not found:
        raise InvalidArgumentError(
            "sim",
            received="a simulation in which no layer has batch-norm statistics",
            expected="a model whose batch norms were folded by `equalize_equivariant`, or by AIMET inside "
            "`equivariant_hooks`",
            remedy="Equalize the model that way before AIMET takes it, or calibrate on data with "
            "`sim.compute_encodings`. A state dict does not carry the statistics.",
        )
    return found


def _check_standard_deviations(standard_deviations: Any) -> float:
    if not _is_number(standard_deviations) or not 0 < standard_deviations < math.inf:
        raise InvalidArgumentError(
            "standard_deviations",
            received=repr(standard_deviations),
            expected="a positive number",
            remedy="6 is what the method's authors take; the default is 7.",
        )
    return float(standard_deviations)


def _check_input_range(input_range: Any) -> tuple[float, float]:
    fits = isinstance(input_range, list | tuple) and len(input_range) == 2
    if (
        not fits
        or not all(_is_number(end) and math.isfinite(end) for end in input_range)
        or (input_range[0] >= input_range[1])
    ):
        raise InvalidArgumentError(
            "input_range",
            received=repr(input_range),
            expected="two finite numbers, the lowest and the highest value of the inputs",
            remedy="Give (0.0, 1.0) for images as `torchvision.transforms.ToTensor` makes them; after a "
            "normalization, what that makes of 0 and 1.",
        )
    return float(input_range[0]), float(input_range[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ranges(
    model: torch.nn.Module,
    statistics: dict[torch.nn.Module, OutputStatistics],
    bounded: tuple[torch.nn.Module, ...],
) -> tuple[QuantizedRange, ...]:
    """Return the ranges of all activation encodings, in the order of the model's modules."""
    ranges = []
    for name, module in model.named_modules():
        if not isinstance(module, BaseQuantizationMixin):
            continue
        origin: Origin = "statistics" if module in statistics else "bounds" if module in bounded else "inputs"
        sides: tuple[tuple[Any, str, Origin], ...] = (
            (module.input_quantizers, " (input)", "input"),
            (module.output_quantizers, "", origin),
        )
        for quantizers, suffix, source in sides:
            for quantizer in quantizers:
                if isinstance(quantizer, AffineQuantizerBase) and quantizer.is_initialized():
                    low, high = quantizer.get_min().detach(), quantizer.get_max().detach()
                    ranges.append(
                        QuantizedRange(f"{name}{suffix}", float(low.min()), float(high.max()), source)
                    )
    return tuple(ranges)
