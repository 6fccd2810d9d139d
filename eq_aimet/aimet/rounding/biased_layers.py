"""The layers of a simulation whose biases can be corrected, and how a bias is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.layers import channel_counts, is_layer
from eq_aimet.symmetry.orbits import bias_orbits, orbit_means

__all__ = ["BiasedLayer", "biased_layers", "channel_axis", "channel_means"]


@dataclass
class BiasedLayer:
    """One quantized layer, its former bias, and the change of the bias so far.

    Attributes:
        name: The layer's full name in the model.
        module: AIMET's quantized convolution or linear layer.
        orbits: The orbit of each output channel; `None` if no group element ties the channels.
        former: The bias before the correction, in float64, of shape (out,).
        change: The change of the bias so far, in float64, of shape (out,).
    """

    name: str
    module: Any
    orbits: torch.Tensor | None
    former: torch.Tensor = field(init=False)
    change: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        weight, bias = self.module.get_parameter("weight"), getattr(self.module, "bias", None)
        counts = channel_counts(self.module)
        assert counts is not None
        zeros = torch.zeros(counts[1], dtype=torch.float64, device=weight.device)
        self.former = zeros if bias is None else bias.detach().double().clone()
        self.change = torch.zeros_like(self.former)

    def tied(self, values: torch.Tensor) -> torch.Tensor:
        """Return one value per output channel, averaged over each orbit of channels."""
        return values if self.orbits is None else orbit_means(values, self.orbits)

    @torch.no_grad()
    def set_change(self, change: torch.Tensor) -> None:
        """Write the former bias plus `change`, tied, in place; a layer without bias gets a bias."""
        self.change = self.tied(change)
        weight, module = self.module.get_parameter("weight"), self.module
        values = (self.former + self.change).to(weight.dtype)
        if getattr(module, "bias", None) is None:
            module.bias = torch.nn.Parameter(values)
            module.param_quantizers["bias"] = None
            return
        module.get_parameter("bias").copy_(values)
        quantizer = module.param_quantizers["bias"]
        if quantizer is not None:
            with quantizer.compute_encodings():
                quantizer(module.bias)


def biased_layers(sim: QuantizationSimModel) -> tuple[list[BiasedLayer], list[tuple[str, str]]]:
    """Return the layers whose bias can be corrected, and the names of the other layers with the reason.

    Raises:
        InvalidArgumentError: If the encoding of a bias is frozen.
    """
    layers: list[BiasedLayer] = []
    left_out: list[tuple[str, str]] = []
    for name, layer in sim.model.named_modules():
        if not isinstance(layer, BaseQuantizationMixin) or not is_layer(layer):
            continue
        module: Any = layer
        quantizers = dict(module.param_quantizers.items())
        if quantizers.get("weight") is None:
            left_out.append((name, "its weight is not quantized"))
            continue
        bias_quantizer = quantizers.get("bias")
        if isinstance(bias_quantizer, AffineQuantizerBase) and not all(
            bias_quantizer.is_overwrite_allowed(key) for key in ("min", "max")
        ):
            raise InvalidArgumentError(
                "sim",
                received=f"a frozen encoding of {name}.bias",
                expected="encodings of biases that may be overwritten",
                remedy="Call `allow_overwrite(True)` on its quantizer, or freeze it after `correct_bias`.",
            )
        blocks = layer_blocks(module)
        orbits = bias_orbits(blocks) if blocks is not None and blocks.actions else None
        layers.append(BiasedLayer(name, module, orbits))
    return layers, left_out


def channel_axis(module: torch.nn.Module) -> int:
    """Return the axis of the channels in a layer's input and output, counted from the end."""
    weight = module.get_parameter("weight")
    return 1 - weight.dim()  # -1 for (out, in), -3 for (out, in, k, k)


def channel_means(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the mean of each channel in float64, of shape (channels,).

    Example:
        >>> channel_means(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), -1).tolist()
        [2.0, 4.0]
    """
    plain = values.detach().as_subclass(torch.Tensor)
    axis %= plain.dim()
    others = [place for place in range(plain.dim()) if place != axis]
    return plain.double().mean(others) if others else plain.double()
