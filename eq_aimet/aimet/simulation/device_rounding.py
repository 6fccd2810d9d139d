"""Roundings of a device that a simulation does not do: biases, and pixels halfway between two integers."""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.internals import concretize_bias_quantizers

__all__ = ["inputs_with_ties", "move_off_ties", "round_biases"]

# The values that 8-bit images take: as they are, in [0, 1], and in [-1, 1].
_LEVELS = torch.arange(256, dtype=torch.float64)
_GRIDS = (_LEVELS, _LEVELS / 255, 2 * _LEVELS / 255 - 1)
# float32 resolves quotients up to 255 to 3e-5.
_TIE = 1e-4
_STEP = 2.0**-12


@torch.no_grad()
def round_biases(model: torch.nn.Module, inputs: Any) -> dict[str, torch.Tensor]:
    """Return, by name, the biases as the device adds them: whole multiples of input scale times weight scale.

    A bias with its own quantizer is left out.

    Args:
        model: A copy of the simulated model, which runs on the inputs.
        inputs: The model's inputs.
    """
    layers = {
        f"{name}.bias": module
        for name, module in model.named_modules()
        if isinstance(module, BaseQuantizationMixin)
        and "bias" in module.param_quantizers
        and module.param_quantizers["bias"] is None
        and getattr(module, "bias", None) is not None
    }
    with concretize_bias_quantizers(model, inputs):
        return {
            name: module.param_quantizers["bias"](module.bias).as_subclass(torch.Tensor).clone()
            for name, module in layers.items()
            if module.param_quantizers["bias"] is not None
        }


def inputs_with_ties(sim: QuantizationSimModel) -> dict[str, AffineQuantizerBase]:
    """Return, by name, the quantizers of the model's inputs that put 8-bit pixels halfway between integers.

    With ranges from images whose brightest pixel is 250, pixel 175 becomes 175·255/250 = 178.5 steps. The
    last bit of a division decides whether 178.5 is rounded up or down, so simulation and device differ in
    many pixels.
    """
    return {
        f"{name}.input_quantizers.{position}": quantizer
        for name, module in sim.model.named_modules()
        if isinstance(module, BaseQuantizationMixin)
        for position, quantizer in enumerate(module.input_quantizers)
        if isinstance(quantizer, AffineQuantizerBase) and _has_ties(quantizer, 1.0)
    }


@torch.no_grad()
def move_off_ties(quantizer: AffineQuantizerBase) -> None:
    """Widen a quantizer's range by a few thousandths at most, in place, so that no 8-bit pixel is a tie."""
    factor = next(1 + k * _STEP for k in range(1, 64) if not _has_ties(quantizer, 1 + k * _STEP))
    quantizer.set_range(quantizer.get_min() * factor, quantizer.get_max() * factor)


def _has_ties(quantizer: AffineQuantizerBase, factor: float) -> bool:
    scales = quantizer.get_scale().detach().double().cpu().flatten() * factor
    for grid in _GRIDS:
        steps = grid / scales[:, None]  # [scales, levels]
        inside = steps.abs() <= quantizer.qmax - quantizer.qmin + 1
        if bool((((steps - steps.floor() - 0.5).abs() < _TIE) & inside).any()):
            return True
    return False
