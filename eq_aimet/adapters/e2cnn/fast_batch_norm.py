"""e2cnn's batch norm of permuted channels, built in linear time and run without copies."""

from __future__ import annotations

from typing import Any

from e2cnn.nn import FieldType, GeometricTensor, InnerBatchNorm

from eq_aimet.adapters.e2cnn.construction import fast_constructor

__all__ = ["FieldBatchNorm", "build_batch_norm"]


class FieldBatchNorm(InnerBatchNorm):
    """e2cnn's `InnerBatchNorm`, without copies of its output and of the output's gradient.

    e2cnn writes the normalized fields of each size into one new tensor. If all fields have the same size,
    the output of their batch norm already is this tensor. The results, the parameters, the buffers and their
    names are the same as in e2cnn.

    Args:
        in_type: The field type. Its representations permit pointwise nonlinearities.
        **options: The other arguments of `InnerBatchNorm`.

    >>> import torch
    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> x = nn.GeometricTensor(torch.randn(3, 8, 5, 5), regular)
    >>> torch.equal(FieldBatchNorm(regular)(x).tensor, nn.InnerBatchNorm(regular)(x).tensor)
    True
    """

    def __init__(self, in_type: FieldType, **options: Any) -> None:
        fast_constructor(InnerBatchNorm)(self, in_type, **options)

    def forward(self, input: GeometricTensor) -> GeometricTensor:
        """Return the normalized fields, of the input's type and shape (B, C, H, W)."""
        if len(self._nfields) > 1 or input.type != self.in_type:
            return super().forward(input)
        (size,) = self._nfields
        norm = getattr(self, f"batch_norm_[{size}]")
        fields = input.tensor.unflatten(1, (-1, size))  # [batch, fields, size, height, width]
        return GeometricTensor(norm(fields).flatten(1, 2), self.out_type)


def build_batch_norm(in_type: FieldType, **options: Any) -> InnerBatchNorm:
    """Return a `FieldBatchNorm`, which is an `e2cnn.nn.InnerBatchNorm`, in linear time.

    Args:
        in_type: The field type. Its representations permit pointwise nonlinearities.
        **options: The other arguments of `InnerBatchNorm`.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> build_batch_norm(nn.FieldType(gspace, 2 * [gspace.regular_repr])).indices_4
    tensor([0, 8])
    """
    return FieldBatchNorm(in_type, **options)
