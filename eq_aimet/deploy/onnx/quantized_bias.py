"""Gives each bias the scale of the sums to which the layer adds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from eq_aimet.deploy.onnx.graph import Graph, attributes

__all__ = ["LARGEST_BIAS", "align_biases"]

# A bias may use half of int32's range; the sum of products needs the other half.
LARGEST_BIAS = 2**30


@dataclass(frozen=True)
class _Layer:
    """A layer between quantizers, with the constants of the DequantizeLinear nodes in front of it."""

    node: onnx.NodeProto
    weight: onnx.NodeProto
    bias_name: str
    bias: np.ndarray  # the values that the file holds, in float64
    bias_scale: np.ndarray
    sum_scale: np.ndarray

    @property
    def is_aligned(self) -> bool:
        return np.allclose(self.bias_scale, self.sum_scale, rtol=1e-5, atol=0)


def align_biases(graph: Graph) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give each int32 bias the scale of its layer's sums, input scale times weight scale, in place.

    If AIMET's exporter could not tell the scale of a layer's input, it took the bias's own range.
    An integer kernel can't add such a bias to its sums, and onnxruntime would compute the layer in floats. If
    the bias does not fit into int32 on the new scale, the weight's scale is raised first.

    Returns:
        The names of the biases that were quantized again, and of the weights whose scale was raised.
    """
    raised = [
        name
        for load in {id(layer.weight): layer.weight for layer in _layers(graph)}.values()
        if (name := _raise_scale(graph, load, [layer for layer in _layers(graph) if layer.weight is load]))
    ]
    aligned = []
    for layer in _layers(graph):
        if layer.is_aligned:
            continue
        integers = np.rint(layer.bias / layer.sum_scale.astype(np.float64)).astype(np.int32)
        zero = np.zeros(layer.sum_scale.shape, np.int32)
        layer.node.input[2] = graph.node(
            "DequantizeLinear",
            [graph.constant(integers), graph.constant(layer.sum_scale), graph.constant(zero)],
            axis=0,
        )
        aligned.append(layer.bias_name)
    return tuple(aligned), tuple(raised)


def _layers(graph: Graph) -> list[_Layer]:
    producers, found = graph.producers(), []
    for node in graph.nodes:
        loads = [producers.get(name) for name in node.input]
        if node.op_type not in ("Conv", "Gemm") or len(loads) != 3:
            continue
        before, weight, bias = loads
        if before is None or weight is None or bias is None:
            continue
        if {before.op_type, weight.op_type, bias.op_type} != {"DequantizeLinear"}:
            continue
        x_scale, weight_scale, bias_scale = (
            graph.constants.get(load.input[1]) for load in (before, weight, bias)
        )
        integers = graph.constants.get(bias.input[0])
        if x_scale is None or weight_scale is None or bias_scale is None or integers is None:
            continue
        found.append(
            _Layer(
                node,
                weight,
                bias.input[0].removesuffix("_q"),
                integers.astype(np.float64) * bias_scale.astype(np.float64),
                bias_scale,
                (x_scale * weight_scale).astype(np.float32),
            )
        )
    return found


def _raise_scale(graph: Graph, load: onnx.NodeProto, layers: list[_Layer]) -> str:
    """Raise a weight's scale in place so that its layers' biases fit; return its name if it was raised."""
    needed = [
        np.abs(layer.bias) / (layer.sum_scale.astype(np.float64) * LARGEST_BIAS)
        for layer in layers
        if not layer.is_aligned
    ]
    name, scale_name = load.input[0], load.input[1]
    weight, scale = graph.constants.get(name), graph.constants[scale_name]
    if not needed or weight is None or max(part.max() for part in needed) <= 1:
        return ""
    factors = np.maximum(np.max(needed, axis=0), 1.0)
    factors = factors.max() if scale.ndim == 0 else factors.reshape(scale.shape)
    along = [1] * weight.ndim
    if scale.ndim:
        along[attributes(load).get("axis", 1)] = -1
    integers = np.rint(weight / np.reshape(factors, along if scale.ndim else ())).astype(weight.dtype)
    if len(graph.consumers()[name]) == 1:
        graph.replace_constant(name, integers)
    else:  # another node loads the same weight with a scale of its own
        load.input[0] = graph.constant(integers)
    load.input[1] = graph.constant((scale * factors).astype(scale.dtype))
    return str(name).removesuffix("_q")
