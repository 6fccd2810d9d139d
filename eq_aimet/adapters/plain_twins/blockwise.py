"""Linear maps within each field, as one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from eq_aimet.adapters.fields import tag_with_types
from eq_aimet.symmetry.blocks import tag_blocks

__all__ = ["blockwise_map", "change_of_basis", "is_on_point"]


def is_on_point(module_or_type: Any) -> bool:
    """Return whether the fields live on one point; their tensors then have the shape (batch, channels)."""
    field_type = getattr(module_or_type, "in_type", module_or_type)
    return field_type.gspace.dimensionality == 0


def blockwise_map(
    in_type: Any, matrices: Sequence[torch.Tensor], offsets: Sequence[torch.Tensor] | None = None
) -> torch.nn.Module:
    """Return a layer that applies a matrix, and adds an offset, to each block of channels.

    The layer is a 1×1 `Conv2d` that carries its blocks. It has one group per block if all blocks have the
    same size. For fields on a point the layer is a `Linear`.

    Args:
        in_type: The field type whose space the blocks live on.
        matrices: One matrix of shape (out_size, in_size) per block; the layer has their dtype and device.
        offsets: One offset of shape (out_size,) per block, or `None` for a layer without offsets.
    """
    sizes = [tuple(matrix.shape) for matrix in matrices]
    blocks_out, blocks_in = zip(*sizes, strict=True)
    like = matrices[0]
    options = {"bias": offsets is not None, "device": like.device, "dtype": like.dtype}
    counts = sum(blocks_in), sum(blocks_out)
    layer: torch.nn.Conv2d | torch.nn.Linear
    if is_on_point(in_type):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, *counts, **options)
        weight = torch.block_diag(*matrices)
    else:
        groups = len(matrices) if len(set(sizes)) == 1 else 1
        layer = torch.nn.utils.skip_init(torch.nn.Conv2d, *counts, 1, groups=groups, **options)
        dense = torch.cat(list(matrices)) if groups > 1 else torch.block_diag(*matrices)
        weight = dense[:, :, None, None]
    with torch.no_grad():
        layer.weight.copy_(weight)
        if offsets is not None:
            assert layer.bias is not None
            layer.bias.copy_(torch.cat(list(offsets)))
    tag_blocks(layer, blocks_in, blocks_out)
    return layer


def change_of_basis(module: Any) -> torch.nn.Module:
    """Return the plain layer of a `DisentangleModule`: a 1×1 `Conv2d`, or `Identity` if the basis stays."""
    bases = {name: getattr(module, f"change_of_basis_{name}") for name in module._order}
    if all(torch.equal(basis, torch.eye(len(basis)).to(basis)) for basis in bases.values()):
        return torch.nn.Identity()
    matrices = [bases[representation.name] for representation in module.in_type.representations]
    return tag_with_types(blockwise_map(module.in_type, matrices), module.in_type, module.out_type)
