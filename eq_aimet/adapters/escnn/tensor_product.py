"""escnn's tensor product: products of the channels of each field, and a linear map of them."""

from __future__ import annotations

import torch
from escnn import nn as enn

from eq_aimet.adapters.plain_twins.blockwise import blockwise_map
from eq_aimet.plain import BlockProducts

__all__ = ["tensor_product"]


def tensor_product(module: enn.TensorProductModule) -> torch.nn.Module:
    """Return the products of all pairs of channels of each field, and the map of these products."""
    with torch.no_grad():
        # The stored `matrix` is stale if the weights changed in eval mode, so the matrix is expanded again.
        matrix = module.expand_parameters()
    count = len(module.in_type)
    return torch.nn.Sequential(
        BlockProducts(count, module.in_type.size // count),
        blockwise_map(module.in_type, list(matrix.detach().unflatten(0, (count, -1)))),
    )
