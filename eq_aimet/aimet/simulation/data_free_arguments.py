"""The checks of `calibrate_without_data`'s arguments."""

from __future__ import annotations

import math
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin

from eq_aimet.aimet.output_statistics import OutputStatistics, is_outdated, output_statistics
from eq_aimet.errors import InvalidArgumentError

__all__ = ["check_input_range", "check_standard_deviations", "find_statistics"]


def find_statistics(model: torch.nn.Module) -> dict[torch.nn.Module, OutputStatistics]:
    """Return the output statistics of each quantized layer that has them.

    Raises:
        InvalidArgumentError: If no layer has statistics, or a layer's statistics do not fit its weights.
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


def check_standard_deviations(standard_deviations: Any) -> float:
    """Return n as a float.

    Raises:
        InvalidArgumentError: If `standard_deviations` is not a positive, finite number.
    """
    if not _is_number(standard_deviations) or not 0 < standard_deviations < math.inf:
        raise InvalidArgumentError(
            "standard_deviations",
            received=repr(standard_deviations),
            expected="a positive number",
            remedy="6 is what the method's authors take; the default is 7.",
        )
    return float(standard_deviations)


def check_input_range(input_range: Any) -> tuple[float, float]:
    """Return the lowest and the highest value of the inputs.

    Raises:
        InvalidArgumentError: If `input_range` does not hold two finite numbers in this order.
    """
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
