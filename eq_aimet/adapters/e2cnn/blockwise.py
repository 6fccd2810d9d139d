"""Linear maps within each field as one 1×1 convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from e2cnn import nn as enn

from eq_aimet.adapters.fields import tag_with_types

__all__ = ["blockwise_layer", "change_of_basis"]


def blockwise_layer(
    module: Any, matrices: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor] | None, like: torch.Tensor
) -> torch.nn.Conv2d:
    """Return a 1×1 `Conv2d` that applies a matrix, and adds an offset, to each field.

    Args:
        module: The e2cnn module that does this, for its types.
        matrices: One matrix of shape (size, size) per field.
        offsets: One offset of shape (size,) per field, or none.
        like: A tensor with the dtype and device of the result.
    """
    sizes = {len(matrix) for matrix in matrices}
    groups = len(matrices) if len(sizes) == 1 else 1
    channels = module.in_type.size
    layer = torch.nn.utils.skip_init(
        torch.nn.Conv2d,
        channels,
        channels,
        1,
        groups=groups,
        bias=offsets is not None,
        device=like.device,
        dtype=like.dtype,
    )
    weight = torch.cat(list(matrices)) if groups > 1 else torch.block_diag(*matrices)
    with torch.no_grad():
        layer.weight.copy_(weight[:, :, None, None])
        if offsets is not None:
            layer.bias.copy_(torch.cat(list(offsets)))
    tag_with_types(layer, module.in_type, module.out_type)
    return layer


def change_of_basis(module: enn.DisentangleModule) -> torch.nn.Module:
    """Return the plain layer of a `DisentangleModule`: a 1×1 `Conv2d`, or nothing where the basis stays."""
    bases = {name: getattr(module, f"change_of_basis_{name}") for name in module._order}
    if all(torch.equal(basis, torch.eye(len(basis)).to(basis)) for basis in bases.values()):
        return torch.nn.Identity()
    matrices = [bases[representation.name] for representation in module.in_type.representations]
    return blockwise_layer(module, matrices, None, matrices[0])
