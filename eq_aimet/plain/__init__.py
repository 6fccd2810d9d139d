"""The plain modules that exported models use in addition to torch's modules. They depend only on torch."""

from eq_aimet.plain.arithmetic import Add, Divide, MatrixProduct, Maximum, Minimum, Multiply, Subtract
from eq_aimet.plain.block_norms import BlockNorm, NormActivation, NormMaxPool
from eq_aimet.plain.block_products import BlockProducts
from eq_aimet.plain.channels import Concat, SelectChannels
from eq_aimet.plain.circular_mask import circular_mask
from eq_aimet.plain.constant_operands import Mask, Scale, Shift
from eq_aimet.plain.field_activations import ConcatenatedActivation, VectorField
from eq_aimet.plain.gates import Gate, GatedChannels, ShiftedSigmoid
from eq_aimet.plain.padding import ConstantPad
from eq_aimet.plain.pooling import GroupMaxPool, UnevenAveragePool, UnevenMaxPool
from eq_aimet.plain.quantization_points import QuantizationPoint
from eq_aimet.plain.reductions import Largest, Mean, Smallest, Sum
from eq_aimet.plain.resizing import BilinearUpsampling

__all__ = [
    "Add",
    "Subtract",
    "Multiply",
    "Divide",
    "Maximum",
    "Minimum",
    "MatrixProduct",
    "Scale",
    "Shift",
    "Mask",
    "Concat",
    "SelectChannels",
    "Mean",
    "Sum",
    "Largest",
    "Smallest",
    "GroupMaxPool",
    "UnevenAveragePool",
    "UnevenMaxPool",
    "ConstantPad",
    "BilinearUpsampling",
    "QuantizationPoint",
    "ConcatenatedActivation",
    "VectorField",
    "ShiftedSigmoid",
    "Gate",
    "GatedChannels",
    "BlockNorm",
    "BlockProducts",
    "NormActivation",
    "NormMaxPool",
    "circular_mask",
]
