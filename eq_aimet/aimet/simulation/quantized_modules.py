"""The quantized twins of our plain modules, in AIMET's pattern for custom modules.

An import of this module registers the quantized twins. `QuantizationSimModel` then accepts a model from
`export_model` without changes.
"""

from __future__ import annotations

import torch
from aimet_torch.nn import QuantizationMixin
from aimet_torch.onnx_utils import map_torch_types_to_onnx
from aimet_torch.utils import modules_to_treat_as_leaf

from eq_aimet import plain

__all__ = [
    "QuantizedConstantPad",
    "QuantizedDivide",
    "QuantizedLargest",
    "QuantizedMatrixProduct",
    "QuantizedMaximum",
    "QuantizedMean",
    "QuantizedMinimum",
    "QuantizedQuantizationPoint",
    "QuantizedScale",
    "QuantizedShift",
    "QuantizedSmallest",
    "QuantizedSum",
    "QuantizedUnevenAveragePool",
    "QuantizedUnevenMaxPool",
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

# The ONNX types decide which of AIMET's configuration rules apply. They must be known before `implements`
# runs:
# - Add needs an output quantizer, or gives it to the ReLU behind it (the supergroup Add, Relu).
# - A quantization point and a padding by a number need an output quantizer. AIMET's rules give no output
#   quantizer to Identity and Pad, so our two modules have their own type names.
# - ReduceMax, ReduceMin, Gather and MaxPool are in AIMET's list of grid-preserving operators: their outputs
#   are some of their inputs, so there is no output quantizer.
# - Mul keeps its output quantizer. A mask of zeros and ones would not need the quantizer, but the masks of
#   e2cnn fall off smoothly at the rim. Without the quantizer, the deployed convolution behind a mask would
#   get float input and run in float.
# - AIMET treats a module of several ONNX operators as one operator, and quantizes its inputs and its output.
#   Such a module has the type of its last operator.
_ONNX_TYPES: dict[type[torch.nn.Module], list[str]] = {
    plain.Add: ["Add"],
    plain.Subtract: ["Sub"],
    plain.Multiply: ["Mul"],
    plain.Divide: ["Div"],
    plain.Maximum: ["Max"],
    plain.Minimum: ["Min"],
    plain.MatrixProduct: ["MatMul"],
    plain.Scale: ["Mul"],
    plain.Shift: ["Add"],
    plain.Mask: ["Mul"],
    plain.Concat: ["Concat"],
    plain.SelectChannels: ["Gather"],
    plain.Mean: ["ReduceMean"],
    plain.Sum: ["ReduceSum"],
    plain.Largest: ["ReduceMax"],
    plain.Smallest: ["ReduceMin"],
    plain.GroupMaxPool: ["ReduceMax"],
    plain.UnevenAveragePool: ["ReduceMean"],
    plain.UnevenMaxPool: ["ReduceMax"],
    plain.ConstantPad: ["ConstantPad"],
    plain.QuantizationPoint: ["QuantizationPoint"],
    plain.ShiftedSigmoid: ["Sigmoid"],
    plain.BlockNorm: ["ReduceL2"],
    plain.NormActivation: ["Mul"],
    plain.NormMaxPool: ["MaxPool"],
    plain.VectorField: ["Mul"],
    plain.ConcatenatedActivation: ["Relu"],
}
map_torch_types_to_onnx.update(_ONNX_TYPES)
# Otherwise AIMET's graph would look into the modules that consist of several tensor operations.
modules_to_treat_as_leaf.extend(_ONNX_TYPES)


def _quantize(quantizers: torch.nn.ModuleList, tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return each tensor, quantized if it has a quantizer."""
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
    """Two quantized inputs, and quantized weights and output, around the plain module's `forward`."""

    def __quant_init__(self) -> None:
        super().__quant_init__()
        self.input_quantizers = torch.nn.ModuleList([None, None])  # type: ignore[list-item]


@QuantizationMixin.implements(plain.Add)
class QuantizedAdd(_QuantizedPair, plain.Add):
    """`Add` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Subtract)
class QuantizedSubtract(_QuantizedPair, plain.Subtract):
    """`Subtract` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Multiply)
class QuantizedMultiply(_QuantizedPair, plain.Multiply):
    """`Multiply` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Concat)
class QuantizedConcat(_Quantized, plain.Concat):
    """`Concat` with one output quantizer; as in AIMET's, only the first input can have a quantizer."""


@QuantizationMixin.implements(plain.Mask)
class QuantizedMask(_Quantized, plain.Mask):
    """`Mask` with one input and one output quantizer; the mask itself stays as it is."""


@QuantizationMixin.implements(plain.GroupMaxPool)
class QuantizedGroupMaxPool(_Quantized, plain.GroupMaxPool):
    """`GroupMaxPool`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.SelectChannels)
class QuantizedSelectChannels(_Quantized, plain.SelectChannels):
    """`SelectChannels`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.ShiftedSigmoid)
class QuantizedShiftedSigmoid(_Quantized, plain.ShiftedSigmoid):
    """`ShiftedSigmoid` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.BlockNorm)
class QuantizedBlockNorm(_Quantized, plain.BlockNorm):
    """`BlockNorm` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.NormActivation)
class QuantizedNormActivation(_Quantized, plain.NormActivation):
    """`NormActivation` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.NormMaxPool)
class QuantizedNormMaxPool(_Quantized, plain.NormMaxPool):
    """`NormMaxPool`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.VectorField)
class QuantizedVectorField(_Quantized, plain.VectorField):
    """`VectorField` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.ConcatenatedActivation)
class QuantizedConcatenatedActivation(_Quantized, plain.ConcatenatedActivation):
    """`ConcatenatedActivation` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.Divide)
class QuantizedDivide(_QuantizedPair, plain.Divide):
    """`Divide` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Maximum)
class QuantizedMaximum(_QuantizedPair, plain.Maximum):
    """`Maximum` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Minimum)
class QuantizedMinimum(_QuantizedPair, plain.Minimum):
    """`Minimum` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.MatrixProduct)
class QuantizedMatrixProduct(_QuantizedPair, plain.MatrixProduct):
    """`MatrixProduct` with two input quantizers and one output quantizer."""


@QuantizationMixin.implements(plain.Scale)
class QuantizedScale(_Quantized, plain.Scale):
    """`Scale` with one input and one output quantizer; a learned factor has a quantizer too."""


@QuantizationMixin.implements(plain.Shift)
class QuantizedShift(_Quantized, plain.Shift):
    """`Shift` with one input and one output quantizer; a learned offset has a quantizer too."""


@QuantizationMixin.implements(plain.Mean)
class QuantizedMean(_Quantized, plain.Mean):
    """`Mean` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.Sum)
class QuantizedSum(_Quantized, plain.Sum):
    """`Sum` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.UnevenAveragePool)
class QuantizedUnevenAveragePool(_Quantized, plain.UnevenAveragePool):
    """`UnevenAveragePool` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.ConstantPad)
class QuantizedConstantPad(_Quantized, plain.ConstantPad):
    """`ConstantPad` with one input and one output quantizer."""


@QuantizationMixin.implements(plain.Largest)
class QuantizedLargest(_Quantized, plain.Largest):
    """`Largest`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.Smallest)
class QuantizedSmallest(_Quantized, plain.Smallest):
    """`Smallest`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.UnevenMaxPool)
class QuantizedUnevenMaxPool(_Quantized, plain.UnevenMaxPool):
    """`UnevenMaxPool`; AIMET leaves the output quantizer off."""


@QuantizationMixin.implements(plain.QuantizationPoint)
class QuantizedQuantizationPoint(_Quantized, plain.QuantizationPoint):
    """`QuantizationPoint` with one output quantizer; an input quantizer on the same values has no use."""

    def __quant_init__(self) -> None:
        super().__quant_init__()
        self.input_quantizers = torch.nn.ModuleList([])
