"""Weight scales that leave room for the biases.

A device adds a bias as an int32 multiple of input scale times weight scale. If all weights of a channel are
zero (a pruned channel, a class that reads nothing), AIMET gives them the smallest scale, about 1e-7, and the
bias would need more than 32 bits. The weight scale of such a channel can be raised at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization import DequantizedTensor, QuantizedTensor
from aimet_torch.quantization.affine import AffineQuantizerBase

from eq_aimet.aimet.simulation.export_readiness import check_not_frozen
from eq_aimet.deploy.onnx.quantized_bias import LARGEST_BIAS
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.calling import call_model

__all__ = ["RaisedScale", "raise_weight_scales"]


@dataclass(frozen=True)
class RaisedScale:
    """A weight whose scale was raised so that the biases fit into int32.

    Attributes:
        name: The weight's full name in the model, e.g. `classifier.weight`.
        channels: The number of encodings with a larger scale; 1 for an encoding of the whole tensor.
        factor: The largest factor.
    """

    name: str
    channels: int
    factor: float


@torch.no_grad()
def raise_weight_scales(
    model: torch.nn.Module, running_copy: torch.nn.Module, inputs: Any
) -> tuple[RaisedScale, ...]:
    """Raise weight scales in place where a bias would need more than 31 bits; return the raised scales.

    Args:
        model: The simulated model to change.
        running_copy: A copy of the model. A run of the copy shows the scale of each layer's input.
        inputs: The inputs to run the copy on.

    Raises:
        InvalidArgumentError: If the encoding of a weight whose scale must be raised is frozen.
    """
    input_scales = _smallest_input_scales(running_copy, inputs)
    raised = []
    for name, module in model.named_modules():
        if name not in input_scales:
            continue
        quantizer: AffineQuantizerBase = module.param_quantizers["weight"]
        factors = _factors(module, quantizer.get_scale(), input_scales[name])
        if bool((factors > 1).any()):
            check_not_frozen(f"{name}.weight", quantizer)
            quantizer.set_range(quantizer.get_min() * factors, quantizer.get_max() * factors)
            raised.append(RaisedScale(f"{name}.weight", int((factors > 1).sum()), float(factors.max())))
    return tuple(raised)


def _factors(module: Any, scale: torch.Tensor, input_scale: float) -> torch.Tensor:
    """Return the factor for each weight scale, as a tensor of the scale's shape."""
    flat = scale.detach().double().flatten()
    bias = module.bias.detach().double().abs()  # [channels]
    if flat.numel() == 1:
        needed = bias.max().reshape(1)
    elif flat.numel() == bias.numel():
        needed = bias
    else:  # the groups of a transposed convolution share their scales
        needed = bias.reshape(-1, flat.numel()).amax(0)
    factors = (needed / (flat * input_scale * LARGEST_BIAS)).clamp(min=1.0)
    blocks = layer_blocks(module)
    if blocks is not None and flat.numel() == sum(blocks.blocks_out):
        factors = torch.cat(
            [
                part.max().expand_as(part) if bool((scales == scales[0]).all()) else part
                for part, scales in zip(
                    factors.split(blocks.blocks_out), flat.split(blocks.blocks_out), strict=True
                )
            ]
        )
    return factors.reshape(scale.shape).to(scale)


def _smallest_input_scales(model: torch.nn.Module, inputs: Any) -> dict[str, float]:
    """Return the smallest input scale of each layer over all runs; omit layers without an input scale."""
    seen: dict[str, float] = {}

    def look(name: str, module: Any, arguments: tuple[Any, ...]) -> None:
        quantizer = module.input_quantizers[0]
        if isinstance(quantizer, AffineQuantizerBase):
            scale = quantizer.get_scale()
        elif arguments and isinstance(arguments[0], (QuantizedTensor, DequantizedTensor)):
            scale = getattr(arguments[0].encoding, "scale", None)
        else:
            return
        if scale is None:
            return
        smallest = float(scale.detach().min())
        if smallest > 0:
            seen[name] = min(smallest, seen.get(name, smallest))

    handles = [
        module.register_forward_pre_hook(lambda module, arguments, name=name: look(name, module, arguments))
        for name, module in model.named_modules()
        if _adds_an_integer_bias(module)
    ]
    try:
        call_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _adds_an_integer_bias(module: torch.nn.Module) -> bool:
    if not isinstance(module, BaseQuantizationMixin) or getattr(module, "bias", None) is None:
        return False
    quantizers = dict(module.param_quantizers.items())
    return (
        isinstance(quantizers.get("weight"), AffineQuantizerBase)
        and "bias" in quantizers
        and quantizers["bias"] is None
        and len(module.input_quantizers) == 1
    )
