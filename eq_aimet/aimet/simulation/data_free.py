"""Activation ranges from batch-norm statistics instead of data: `calibrate_without_data`.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721,
section 5: the range of a layer's output is β ± n|γ| of the batch norm that was folded into it, with n = 6.
AIMET computes the encodings as usual. Its quantizers see values that are made up from the statistics.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.utils import remove_all_quantizers

from eq_aimet.aimet.output_statistics import OutputStatistics
from eq_aimet.aimet.simulation.data_free_arguments import (
    check_input_range,
    check_standard_deviations,
    find_statistics,
)
from eq_aimet.aimet.simulation.data_free_report import CalibrationReport, Origin, QuantizedRange
from eq_aimet.aimet.simulation.dummy_input import checked_input
from eq_aimet.aimet.simulation.export_readiness import check_simulation
from eq_aimet.aimet.simulation.made_up_outputs import PASSES, MadeUpOutputs
from eq_aimet.aimet.simulation.sampling import input_sample
from eq_aimet.aimet.simulation.unchanged import copied_model, unchanged_on_error
from eq_aimet.symmetry.calling import call_model, map_tensors

__all__ = ["calibrate_without_data"]

logger = logging.getLogger(__name__)


def calibrate_without_data(
    sim: QuantizationSimModel,
    dummy_input: Any,
    *,
    input_range: tuple[float, float] = (0.0, 1.0),
    standard_deviations: float = 7.0,
) -> CalibrationReport:
    """Compute all encodings from the batch norms' statistics, in place; replaces `compute_encodings`.

    If a layer has statistics, each channel of its output ranges over mean ± n·σ. If a convolution or linear
    layer has no statistics (often the last layer), its output ranges over all values that its weight can
    compute from the range of its inputs. From these outputs the model itself computes the ranges of the
    modules between the layers (activations, sums, pooling, masks …). Weights get AIMET's usual encodings.
    Frozen encodings stay.

    Args:
        sim: AIMET's simulation of a model whose batch norms were folded by `equalize_equivariant`, or by
            AIMET's functions inside `equivariant_hooks`. Batch norms that were not folded give statistics,
            too.
        dummy_input: An input of the model: a tensor, a tuple of tensors, or a dictionary of tensors by name.
            Only the shapes matter.
        input_range: The lowest and highest value of the model's inputs. The statistics do not contain this
            range. The default is the range of images that are not normalized.
        standard_deviations: The n of mean ± n·σ. A smaller n clips more values; a larger n rounds more
            coarsely.

    Returns:
        The range of each activation encoding, and the origin of the range.

    Raises:
        InvalidArgumentError: If `sim` isn't AIMET's; if no layer has statistics, or a layer was changed after
            its statistics were taken; if the model fails on `dummy_input`; or if `input_range` or
            `standard_deviations` is invalid. The simulation stays unchanged.

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
    limit = check_standard_deviations(standard_deviations)
    lowest, highest = check_input_range(input_range)
    statistics = find_statistics(sim.model)
    device = next(sim.model.parameters()).device
    placed = map_tensors(lambda tensor: tensor.to(device), dummy_input)
    unquantized = copied_model(sim)
    with remove_all_quantizers(unquantized):
        inputs = checked_input(unquantized, placed)
    outputs = MadeUpOutputs(sim.model, statistics, limit)

    def run_on_statistics(model: torch.nn.Module) -> None:
        with outputs:
            for number, kind in enumerate(PASSES):
                outputs.number, outputs.kind = number, kind
                call_model(model, _made_up(inputs, lowest, highest, seed=number))

    with unchanged_on_error(sim):
        sim.compute_encodings(run_on_statistics)
    report = CalibrationReport(
        limit,
        (lowest, highest),
        tuple(name for name, module in sim.model.named_modules() if module in statistics),
        tuple(name for name, module in sim.model.named_modules() if module in outputs.bounded),
        _ranges(sim.model, statistics, outputs.bounded),
    )
    logger.info("Calibrated without data:\n%s", report)
    return report


def _made_up(inputs: Any, lowest: float, highest: float, *, seed: int) -> Any:
    """Return the inputs with all floating-point tensors replaced by samples of the input range."""

    def sample(tensor: torch.Tensor) -> torch.Tensor:
        return input_sample(tensor, lowest, highest, seed=seed) if tensor.is_floating_point() else tensor

    return map_tensors(sample, inputs)


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
