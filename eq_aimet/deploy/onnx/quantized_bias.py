"""Biases on the grid of the sums that they are added to."""

from __future__ import annotations

import numpy as np

from eq_aimet.deploy.onnx.graph import Graph

__all__ = ["align_biases"]


def align_biases(graph: Graph) -> tuple[str, ...]:
    """Give each int32 bias the scale of its layer's sums, input scale times weight scale, in place.

    Where the exporter could not tell the scale of a layer's input, it made one up from the bias's own range.
    An integer kernel can't add such a bias to its sums: onnxruntime then computes the layer in floats.

    Returns:
        The names of the biases that were quantized anew.
    """
    producers, aligned = graph.producers(), []
    for node in list(graph.nodes):
        loads = [producers.get(name) for name in node.input]
        if node.op_type not in ("Conv", "Gemm") or len(loads) != 3:
            continue
        if any(load is None or load.op_type != "DequantizeLinear" for load in loads):
            continue
        names = [load.input[1] for load in loads if load is not None]
        scales = [graph.constants.get(name) for name in names]
        bias = loads[2]
        assert bias is not None
        integers = graph.constants.get(bias.input[0])
        x_scale, weight_scale, bias_scale = scales
        if x_scale is None or weight_scale is None or bias_scale is None or integers is None:
            continue
        expected = (x_scale * weight_scale).astype(np.float32)
        if np.allclose(bias_scale, expected, rtol=1e-5, atol=0):
            continue
        exact = integers.astype(np.float64) * bias_scale.astype(np.float64) / expected.astype(np.float64)
        limits = np.iinfo(np.int32)
        moved = np.clip(np.rint(exact), limits.min, limits.max).astype(np.int32)
        zero = np.zeros(expected.shape, np.int32)
        value = graph.node(
            "DequantizeLinear",
            [graph.constant(moved), graph.constant(expected), graph.constant(zero)],
            axis=0,
        )
        node.input[2] = value
        aligned.append(bias.input[0].removesuffix("_q"))
    return tuple(aligned)
