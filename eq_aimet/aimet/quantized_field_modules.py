"""The quantized twins of the plain modules for e2cnn's nonlinearities, norms and labelled branches.

`quantized_modules` imports this file, which registers them.
"""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.nn import QuantizationMixin
from aimet_torch.onnx_utils import map_torch_types_to_onnx

from eq_aimet.symmetry.field_modules import ConcatenatedActivation, ShiftedSigmoid, VectorField
from eq_aimet.symmetry.modules import Concat, Multiply, SelectChannels, Subtract
from eq_aimet.symmetry.norm_modules import BlockNorm, NormActivation, NormMaxPool

__all__ = [
    "QuantizedBlockNorm",
    "QuantizedConcat",
    "QuantizedConcatenatedActivation",
    "QuantizedMultiply",
    "QuantizedNormActivation",
    "QuantizedNormMaxPool",
    "QuantizedSelectChannels",
    "QuantizedShiftedSigmoid",
    "QuantizedSubtract",
    "QuantizedVectorField",
]

# As for the other modules, the ONNX type says which of AIMET's rules apply. Gather and MaxPool are
# grid-preserving: their outputs are some of their inputs, so AIMET leaves the output quantizer off. The
# modules that consist of several ONNX operators are one to AIMET, quantized where they begin and end; they go
# by their last operator.
map_torch_types_to_onnx.update(
    {
        Subtract: ["Sub"],
        Multiply: ["Mul"],
        Concat: ["Concat"],
        SelectChannels: ["Gather"],
        ShiftedSigmoid: ["Sigmoid"],
        BlockNorm: ["ReduceL2"],
        NormActivation: ["Mul"],
        NormMaxPool: ["MaxPool"],
        VectorField: ["Mul"],
        ConcatenatedActivation: ["Relu"],
    }
)


def _quantize(quantizers: Any, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return each tensor, passed through its quantizer where there is one."""
    chosen = [*quantizers, *[None] * (len(tensors) - len(quantizers))]
    return tuple(
        tensor if quantizer is None else quantizer(tensor)
        for quantizer, tensor in zip(chosen, tensors, strict=False)
    )


class _Quantized(QuantizationMixin):
    """Quantized inputs, weights and output around the plain module's `forward`."""

    input_quantizers: torch.nn.ModuleList
    output_quantizers: torch.nn.ModuleList

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the quantized output of the plain module on quantized inputs."""
        tensors = _quantize(self.input_quantizers, tensors)
        with self._patch_quantized_parameters():
            output = super().forward(*tensors)
        return _quantize(self.output_quantizers, (output,))[0]


class _QuantizedPair(_Quantized):
    """The same for two inputs."""

    def __quant_init__(self) -> None:
        super().__quant_init__()
        self.input_quantizers = torch.nn.ModuleList([None, None])  # type: ignore[list-item]


@QuantizationMixin.implements(Subtract)
class QuantizedSubtract(_QuantizedPair, Subtract):
    """`Subtract` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(Multiply)
class QuantizedMultiply(_QuantizedPair, Multiply):
    """`Multiply` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(Concat)
class QuantizedConcat(_Quantized, Concat):
    """`Concat` with one output quantizer; as in AIMET's, inputs beyond the first have none."""


@QuantizationMixin.implements(SelectChannels)
class QuantizedSelectChannels(_Quantized, SelectChannels):
    """`SelectChannels`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(ShiftedSigmoid)
class QuantizedShiftedSigmoid(_Quantized, ShiftedSigmoid):
    """`ShiftedSigmoid` with one input and one output quantizer."""


@QuantizationMixin.implements(BlockNorm)
class QuantizedBlockNorm(_Quantized, BlockNorm):
    """`BlockNorm` with one input and one output quantizer."""


@QuantizationMixin.implements(NormActivation)
class QuantizedNormActivation(_Quantized, NormActivation):
    """`NormActivation` with one input and one output quantizer."""


@QuantizationMixin.implements(NormMaxPool)
class QuantizedNormMaxPool(_Quantized, NormMaxPool):
    """`NormMaxPool`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(VectorField)
class QuantizedVectorField(_Quantized, VectorField):
    """`VectorField` with one input and one output quantizer."""


@QuantizationMixin.implements(ConcatenatedActivation)
class QuantizedConcatenatedActivation(_Quantized, ConcatenatedActivation):
    """`ConcatenatedActivation` with one input and one output quantizer."""
