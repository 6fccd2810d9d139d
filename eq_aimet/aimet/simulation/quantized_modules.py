"""The quantized twins of our plain modules, in AIMET's pattern for custom modules.

Importing this module registers them, so that `QuantizationSimModel` takes a model out of `export_model` as
it is.
"""

from __future__ import annotations

import torch
from aimet_torch.nn import QuantizationMixin
from aimet_torch.onnx_utils import map_torch_types_to_onnx
from aimet_torch.utils import modules_to_treat_as_leaf

from eq_aimet.plain.field_modules import ConcatenatedActivation, ShiftedSigmoid, VectorField
from eq_aimet.plain.norm_modules import BlockNorm, NormActivation, NormMaxPool
from eq_aimet.plain.operations import Add, Concat, GroupMaxPool, Mask, Multiply, SelectChannels, Subtract

__all__ = [
    "QuantizedAdd",
    "QuantizedBlockNorm",
    "QuantizedConcat",
    "QuantizedConcatenatedActivation",
    "QuantizedGroupMaxPool",
    "QuantizedMask",
    "QuantizedMultiply",
    "QuantizedNormActivation",
    "QuantizedNormMaxPool",
    "QuantizedSelectChannels",
    "QuantizedShiftedSigmoid",
    "QuantizedSubtract",
    "QuantizedVectorField",
]

# The ONNX types decide which of AIMET's configuration rules apply, and must be known before `implements`
# runs:
# - Add needs an output quantizer, or gives it to the ReLU behind it (the supergroup Add, Relu).
# - ReduceMax, Gather and MaxPool are in AIMET's list of grid-preserving operators: their outputs are some of
#   their inputs, so there is no output quantizer.
# - Mul keeps its output quantizer. A mask of zeros and ones would need none, but the masks of e2cnn fall
#   off smoothly at the rim; and without one the deployed convolution behind a mask would get float input
#   and run in float.
# - Modules that consist of several ONNX operators are one to AIMET, quantized where they begin and end; they
#   go by their last operator.
_ONNX_TYPES: dict[type[torch.nn.Module], list[str]] = {
    Add: ["Add"],
    Subtract: ["Sub"],
    Multiply: ["Mul"],
    Concat: ["Concat"],
    Mask: ["Mul"],
    GroupMaxPool: ["ReduceMax"],
    SelectChannels: ["Gather"],
    ShiftedSigmoid: ["Sigmoid"],
    BlockNorm: ["ReduceL2"],
    NormActivation: ["Mul"],
    NormMaxPool: ["MaxPool"],
    VectorField: ["Mul"],
    ConcatenatedActivation: ["Relu"],
}
map_torch_types_to_onnx.update(_ONNX_TYPES)
# AIMET's graph would otherwise look into those that take several tensor operations.
modules_to_treat_as_leaf.extend(_ONNX_TYPES)


def _quantize(quantizers: torch.nn.ModuleList, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
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


@QuantizationMixin.implements(Add)
class QuantizedAdd(_QuantizedPair, Add):
    """`Add` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(Subtract)
class QuantizedSubtract(_QuantizedPair, Subtract):
    """`Subtract` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(Multiply)
class QuantizedMultiply(_QuantizedPair, Multiply):
    """`Multiply` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(Concat)
class QuantizedConcat(_Quantized, Concat):
    """`Concat` with one output quantizer; as in AIMET's, inputs beyond the first have none."""


@QuantizationMixin.implements(Mask)
class QuantizedMask(_Quantized, Mask):
    """`Mask` with one input and one output quantizer; the mask itself stays as it is."""


@QuantizationMixin.implements(GroupMaxPool)
class QuantizedGroupMaxPool(_Quantized, GroupMaxPool):
    """`GroupMaxPool`; AIMET leaves the output quantizer off."""


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
