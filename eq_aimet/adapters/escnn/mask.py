"""The circular mask as a module of escnn."""

from __future__ import annotations

from escnn.nn import EquivariantModule

from eq_aimet.adapters.additions.circular_mask import CircularMaskParts

__all__ = ["CircularMask"]


class CircularMask(CircularMaskParts, EquivariantModule):
    """Sets the pixels outside the inscribed circle to zero.

    Args:
        in_type: The field type of input and output.
        size: The side of the square grid in pixels.

    Example:
        >>> import torch
        >>> from eq_aimet.adapters.escnn import enn, gspaces
        >>> gspace = gspaces.rot2dOnR2(4)
        >>> rgb = enn.FieldType(gspace, 3 * [gspace.trivial_repr])
        >>> CircularMask(rgb, 5)(enn.GeometricTensor(torch.ones(1, 3, 5, 5), rgb)).tensor.sum()
        tensor(63.)
    """
