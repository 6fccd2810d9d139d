"""The few plain modules that exported models are made of beside torch's own. Needs torch alone."""

from eq_aimet.plain.block_products import BlockProducts
from eq_aimet.plain.circular_mask import circular_mask
from eq_aimet.plain.field_modules import (
    ConcatenatedActivation,
    Gate,
    GatedChannels,
    ShiftedSigmoid,
    VectorField,
)
from eq_aimet.plain.norm_modules import BlockNorm, NormActivation, NormMaxPool
from eq_aimet.plain.operations import Add, Concat, GroupMaxPool, Mask, Multiply, SelectChannels, Subtract

__all__ = [
    "Add",
    "Subtract",
    "Multiply",
    "Concat",
    "SelectChannels",
    "Mask",
    "GroupMaxPool",
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
