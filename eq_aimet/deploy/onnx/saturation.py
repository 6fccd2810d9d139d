"""Finds integer weights on which kernels without VNNI can saturate.

Without the VNNI instructions, onnxruntime multiplies pairs of u8 activations and s8 weights and adds the two
products in int16, where 255·127·2 does not fit. With weights in [-64, 63] the sum stays below 2¹⁵.
"""

from __future__ import annotations

import numpy as np

from eq_aimet.deploy.onnx.graph import Graph

__all__ = ["LARGEST", "SMALLEST", "wide_weights"]

SMALLEST, LARGEST = -64, 63


def wide_weights(graph: Graph) -> tuple[str, ...]:
    """Return the names of the 8-bit weights outside [-64, 63]."""
    wide = []
    producers = graph.producers()
    for node in graph.nodes:
        load = producers.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or load is None:
            continue
        weight = graph.constants.get(load.input[0])
        if weight is None or weight.dtype != np.int8:
            continue
        if weight.min() < SMALLEST or weight.max() > LARGEST:
            wide.append(load.input[0].removesuffix("_q"))
    return tuple(dict.fromkeys(wide))
