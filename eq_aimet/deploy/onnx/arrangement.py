"""Rewrites operators so that the runtime's fast integer kernels compute them.

Each rewritten operator computes the same integers: it multiplies and adds the same quantized numbers in
another arrangement. A sum of integers does not depend on the order of its terms, so an operator that
computes in integers returns the same bits for a turned image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from eq_aimet.deploy.onnx.constant_folding import fold_constants
from eq_aimet.deploy.onnx.graph import Graph, attributes

__all__ = ["Rewriting", "arrange"]

_SPATIAL = (2, 3)


@dataclass(frozen=True)
class Rewriting:
    """An operator that was rewritten.

    Attributes:
        operator: The type and the output of the old operator, e.g. `AveragePool of /pool/out`.
        into: The operator that replaces it.
    """

    operator: str
    into: str


@dataclass(frozen=True)
class _Quantized:
    """An operator behind a DequantizeLinear, and the QuantizeLinear of its output if it has one."""

    node: onnx.NodeProto
    before: onnx.NodeProto
    after: onnx.NodeProto | None


def arrange(graph: Graph) -> tuple[Rewriting, ...]:
    """Rewrite the operators that onnxruntime would compute slowly or in floats; work in place.

    - A quantized average pooling with constant divisor becomes a depthwise convolution with ones:
      onnxruntime sums the windows of an average pooling in floats, in an order that a turn changes.
    - A quantized mean or sum over the grid becomes a global average pooling; its kernel adds integers.
    - A grouped convolution becomes a depthwise convolution if each group has equal numbers of inputs and
      outputs.

    Returns:
        The operators that were rewritten.
    """
    done = []
    fold_constants(graph)
    for quantized in _quantized_operators(graph):
        node = quantized.node
        rewrite = _REWRITINGS.get(node.op_type)
        into = rewrite(graph, quantized) if rewrite else ""
        if into:
            done.append(Rewriting(f"{node.op_type} of {node.output[0]}", into))
    return tuple(done)


def _quantized_operators(graph: Graph) -> list[_Quantized]:
    producers, consumers = graph.producers(), graph.consumers()
    found = []
    for node in graph.nodes:
        before = producers.get(node.input[0]) if node.input else None
        after = consumers.get(node.output[0], [])
        if before is not None and before.op_type == "DequantizeLinear":
            quantizes = len(after) == 1 and after[0].op_type == "QuantizeLinear"
            found.append(_Quantized(node, before, after[0] if quantizes else None))
    return found


def _average_pool(graph: Graph, quantized: _Quantized) -> str:
    """Write an average over k×k windows as a depthwise convolution with ones and a weight scale of 1/k²."""
    node, options = quantized.node, attributes(quantized.node)
    shape = graph.shape(node.input[0])
    pads = options.get("pads", [0, 0, 0, 0])
    uniform = not any(pads) or options.get("count_include_pad", 0)
    if (
        quantized.after is None
        or shape is None
        or len(shape) != 4
        or not uniform
        or options.get("ceil_mode", 0)
        or options.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):
        return ""
    channels, kernel = shape[1], options["kernel_shape"]
    ones = graph.constant(np.ones((channels, 1, *kernel), dtype=np.int8))
    scale = graph.constant(np.array(1 / np.prod(kernel), dtype=np.float32))
    weight = graph.node("DequantizeLinear", [ones, scale, graph.constant(np.zeros((), dtype=np.int8))])
    graph.remove(node)
    graph.node(
        "Conv",
        [node.input[0], weight],
        node.output[0],
        group=channels,
        kernel_shape=kernel,
        pads=pads,
        strides=options.get("strides", [1, 1]),
        dilations=options.get("dilations", [1, 1]),
    )
    return "a depthwise convolution with ones"


def _mean(graph: Graph, quantized: _Quantized) -> str:
    """Write a mean over both dimensions of the grid as GlobalAveragePool and a Reshape of its output."""
    return _global_average(graph, quantized, divisor=1)


def _sum(graph: Graph, quantized: _Quantized) -> str:
    """Write a sum over n pixels as their mean, quantized with 1/n of the scale."""
    shape = graph.shape(quantized.node.input[0]) or ()
    return _global_average(graph, quantized, divisor=int(np.prod(shape[2:])))


def _global_average(graph: Graph, quantized: _Quantized, divisor: int) -> str:
    node, options = quantized.node, attributes(quantized.node)
    axes = options.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.constants[node.input[1]].tolist()
    shape, out_shape = graph.shape(node.input[0]), graph.shape(node.output[0])
    after = quantized.after
    if after is None or shape is None or out_shape is None or len(shape) != 4 or axes is None:
        return ""
    scale = graph.constants.get(after.input[1])
    if tuple(sorted(axis % 4 for axis in axes)) != _SPATIAL or scale is None:
        return ""
    encoding = [graph.constant((scale / divisor).astype(scale.dtype)), *after.input[2:]]
    graph.remove(node)
    graph.remove(after)
    pooled = graph.node("GlobalAveragePool", [node.input[0]])
    if len(out_shape) == 4:
        graph.node("QuantizeLinear", [pooled, *encoding], after.output[0])
        return "a global average pooling"
    # The integers are reshaped, so that the pooling stays between its two quantizers.
    quantize = graph.node("QuantizeLinear", [pooled, *encoding])
    graph.node("Reshape", [quantize, _shape(graph, *out_shape)], after.output[0])
    return "a global average pooling"


def _grouped_convolution(graph: Graph, quantized: _Quantized) -> str:
    """Write a convolution with groups of n inputs and n outputs as a depthwise one over a wider input.

    With x' [(g, a), y, n·x + b] = x[(g, b), y, x] the output channel (g, a) sees only channel (g, a) of x',
    through a kernel of width n·k and with n times the stride: the same sums. onnxruntime's kernel
    for depthwise convolutions computes them; its kernel for groups needs one small matrix product per group.
    """
    node, options = quantized.node, attributes(quantized.node)
    shape = graph.shape(node.input[0])
    load = graph.producers().get(node.input[1])
    weight = graph.constants.get(load.input[0]) if load is not None else None
    if shape is None or load is None or weight is None or not _has_square_groups(shape, weight, options):
        return ""
    size = weight.shape[1]
    kernel_height, kernel_width = weight.shape[2:]
    top, left, bottom, right = options.get("pads", [0, 0, 0, 0])
    down, along = options.get("strides", [1, 1])
    graph.remove(node)
    graph.node(
        "Conv",
        [
            _widened_input(graph, quantized.before, shape, size),
            # a layer that runs several times has one weight for all runs
            graph.once(("laid out", *load.input), lambda: _laid_out(graph, load, weight)),
            *node.input[2:],
        ],
        node.output[0],
        group=shape[1],
        kernel_shape=[kernel_height, kernel_width * size],
        pads=[top, left * size, bottom, right * size],
        strides=[down, along * size],
    )
    return f"a depthwise convolution {kernel_height}×{kernel_width * size}"


def _has_square_groups(shape: tuple[int, ...], weight: np.ndarray, options: dict[str, Any]) -> bool:
    """Return whether a convolution has groups of n > 1 inputs and n outputs, and no dilation."""
    groups, size = options.get("group", 1), weight.shape[1]
    return (
        groups > 1
        and size > 1
        and len(shape) == 4
        and weight.shape[0] == groups * size
        and all(step == 1 for step in options.get("dilations", [1, 1]))
        and options.get("auto_pad", b"NOTSET") == b"NOTSET"
    )


def _widened_input(graph: Graph, load: onnx.NodeProto, shape: tuple[int, ...], size: int) -> str:
    """Return the input with the n channels of each group side by side along the width, in n copies.

    No tensor has more than four dimensions, and each step stands between quantizers of the input's encoding:
    Qualcomm's runtime takes five dimensions at most, and moves integers only if it knows their encoding.
    onnxruntime removes the quantizers when it opens the file.
    """
    batch, channels, height, width = shape
    groups, encoding = channels // size, load.input[1:]

    def moved(op_type: str, value: str, *constants: str, **options: Any) -> str:
        value = graph.node(op_type, [value, *constants], **options)
        value = graph.node("QuantizeLinear", [value, *encoding])
        return graph.node("DequantizeLinear", [value, *encoding])

    value = moved("Reshape", load.output[0], _shape(graph, batch * groups, size, height, width))
    value = moved("Transpose", value, perm=[0, 2, 3, 1])  # [batch · groups, height, width, n]
    value = moved("Reshape", value, _shape(graph, batch, groups, height, width * size))
    copies = graph.constant(np.repeat(np.arange(groups), size))
    return moved("Gather", value, copies, axis=1)  # [batch, channels, height, width · n]


def _laid_out(graph: Graph, load: onnx.NodeProto, weight: np.ndarray) -> str:
    """Return the weight in depthwise form; the runtime computes it at load, also for storage by orbit."""
    channels, size, height, width = weight.shape
    value = graph.node("Transpose", [load.input[0]], perm=[0, 2, 3, 1])
    value = graph.node("Reshape", [value, _shape(graph, channels, 1, height, width * size)])
    return graph.node("DequantizeLinear", [value, *load.input[1:]], **attributes(load))


def _shape(graph: Graph, *sizes: int) -> str:
    return graph.constant(np.array(sizes, dtype=np.int64))


_REWRITINGS = {
    "AveragePool": _average_pool,
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "Conv": _grouped_convolution,
}
