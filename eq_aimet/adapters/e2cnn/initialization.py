"""He initialisation of e2cnn's convolutions, computed per block instead of per basis element."""

from __future__ import annotations

import math
from collections import Counter

import torch
from e2cnn.nn import R2Conv
from e2cnn.nn.modules.r2_conv.basisexpansion_blocks import BlocksBasisExpansion

__all__ = ["generalized_he_init", "he_deviations"]


def generalized_he_init(conv: R2Conv) -> None:
    """Draw the weights of `conv` like `e2cnn.nn.init.generalized_he_init`; works in place.

    With the same seed the weights are bit-identical to e2cnn's. e2cnn's bookkeeping visits each basis
    element of each pair of fields. This function visits each basis element only once per pair of
    representations.

    Args:
        conv: The convolution. The function overwrites its `weights`.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, 2 * [gspace.regular_repr])
    >>> conv = nn.R2Conv(regular, regular, kernel_size=3, initialize=False)
    >>> bool(conv.weights.any())
    False
    >>> generalized_he_init(conv)
    >>> bool(conv.weights.any())
    True
    """
    with torch.no_grad():
        deviations = he_deviations(conv.basisexpansion).to(conv.weights)
        conv.weights.copy_(deviations * torch.randn_like(conv.weights))


def he_deviations(expansion: BlocksBasisExpansion) -> torch.Tensor:
    """Return the standard deviation of each weight, of shape (number of weights,).

    Suppose that n kinds of input irreps feed an output irrep, and that kind i has b_i basis elements. Then
    the weights of these b_i elements get 1/√(n·b_i). This is He's initialisation (2015) generalised to
    steerable filters (Weiler, Hamprecht & Storath 2018), as e2cnn implements it. The counts are the same for
    all output fields of one representation, so one pattern per block is enough.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> trivial = nn.FieldType(gspace, 8 * [gspace.trivial_repr])
    >>> he_deviations(nn.R2Conv(trivial, trivial, kernel_size=1).basisexpansion).unique()
    tensor([0.3536])
    """
    # Per output representation: the number of basis elements from each kind of input irrep to each of its
    # irreps.
    reaching: dict[str, Counter[tuple[str, int]]] = {}
    blocks = {}
    for pair in expansion._representations_pairs:
        blocks[pair] = list(getattr(expansion, f"block_expansion_{pair}").get_basis_info())
        counter = reaching.setdefault(pair[1], Counter())
        for element in blocks[pair]:
            counter[element["in_irrep"], element["out_irrep_idx"]] += expansion._in_count[pair[0]]
    parts = []
    for pair, elements in blocks.items():
        counter = reaching[pair[1]]
        kinds = Counter(target for _, target in counter)
        pattern = [
            1.0 / math.sqrt(kinds[target] * counter[kind, target])
            for kind, target in ((element["in_irrep"], element["out_irrep_idx"]) for element in elements)
        ]
        copies = expansion._in_count[pair[0]] * expansion._out_count[pair[1]]
        parts.append(torch.tensor(pattern, dtype=torch.get_default_dtype()).repeat(copies))
    return torch.cat(parts)
