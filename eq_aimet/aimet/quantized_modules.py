"""The quantized twins of our plain modules, in AIMET's pattern for custom modules.

Importing this module registers them, so that `QuantizationSimModel` takes a model out of `export_model` as
it is.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from aimet_torch.nn import QuantizationMixin
from aimet_torch.onnx_utils import map_torch_types_to_onnx
from aimet_torch.utils import modules_to_treat_as_leaf

from eq_aimet.aimet import quantized_field_modules as _quantized_field_modules  # noqa: F401 (registers)
from eq_aimet.symmetry.modules import Add, GroupMaxPool, Mask

__all__ = ["QuantizedAdd", "QuantizedGroupMaxPool", "QuantizedMask"]

# The ONNX types decide which of AIMET's configuration rules apply, and must be known before `implements`
# runs:
# - Add needs an output quantizer, or gives it to the ReLU behind it (the supergroup Add, Relu).
# - ReduceMax is in AIMET's list of grid-preserving operators, as MaxPool is: a maximum of quantized values
#   is one of them, so there is no output quantizer.
# - Mul keeps its output quantizer. A mask of zeros and ones would need none, but the masks of e2cnn fall
#   off smoothly at the rim; and without one the deployed convolution behind a mask would get float input
#   and run in float.
map_torch_types_to_onnx.update({Add: ["Add"], Mask: ["Mul"], GroupMaxPool: ["ReduceMax"]})
# AIMET's graph would otherwise look into those that take several tensor operations.
modules_to_treat_as_leaf.extend(
    module for module in map_torch_types_to_onnx if module.__module__.startswith("eq_aimet.")
)


def _quantize(
    quantizers: Iterable[torch.nn.Module | None], *tensors: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return each tensor, passed through its quantizer where there is one."""
    return tuple(
        tensor if quantizer is None else quantizer(tensor)
        for quantizer, tensor in zip(quantizers, tensors, strict=True)
    )


@QuantizationMixin.implements(Add)
class QuantizedAdd(QuantizationMixin, Add):
    """`Add` with two input quantizers and one output quantizer."""

    input_quantizers: torch.nn.ModuleList
    output_quantizers: torch.nn.ModuleList

    def __quant_init__(self) -> None:
        super().__quant_init__()
        self.input_quantizers = torch.nn.ModuleList([None, None])  # type: ignore[list-item]

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the quantized sum of the quantized inputs, of their shape."""
        x, y = _quantize(self.input_quantizers, x, y)
        return _quantize(self.output_quantizers, super().forward(x, y))[0]


@QuantizationMixin.implements(Mask)
class QuantizedMask(QuantizationMixin, Mask):
    """`Mask` with one input and one output quantizer; the mask itself stays as it is."""

    input_quantizers: torch.nn.ModuleList
    output_quantizers: torch.nn.ModuleList

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the quantized product of the quantized input with the mask."""
        (x,) = _quantize(self.input_quantizers, x)
        return _quantize(self.output_quantizers, super().forward(x))[0]


@QuantizationMixin.implements(GroupMaxPool)
class QuantizedGroupMaxPool(QuantizationMixin, GroupMaxPool):
    """`GroupMaxPool` with one input and one output quantizer; AIMET leaves the latter off."""

    input_quantizers: torch.nn.ModuleList
    output_quantizers: torch.nn.ModuleList

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the quantized maximum over each block, (batch, blocks, …) of (batch, channels, …)."""
        (x,) = _quantize(self.input_quantizers, x)
        return _quantize(self.output_quantizers, super().forward(x))[0]
