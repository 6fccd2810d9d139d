"""An evaluation of an exported file that follows the deployed arithmetic, without the runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from eq_aimet.deploy.batches import run_in_batches
from eq_aimet.deploy.onnx import integer_kernels as kernels
from eq_aimet.deploy.onnx.graph import Graph, attributes
from eq_aimet.deploy.onnx.integer_kernels import Quantization
from eq_aimet.deploy.onnx.reference_operators import MOVING_OPERATORS, use_own_operators

__all__ = ["IntegerReference"]

_DOMAIN = "eq_aimet"


class _Convolution(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(
        self, x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any,
        *bias: Any, group: Any = None, pads: Any = None, strides: Any = None, dilations: Any = None,
    ) -> tuple[np.ndarray]:  # fmt: skip
        output = kernels.convolve(
            x,
            w,
            bias[0] if bias else None,
            Quantization(x_scale, x_zero),
            Quantization(w_scale, w_zero),
            Quantization(y_scale, y_zero),
            strides=strides,
            pads=pads,
            dilations=dilations,
            groups=group,
        )
        return (output,)


class _MatrixProduct(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(
        self, x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any,
        *bias: Any,
    ) -> tuple[np.ndarray]:  # fmt: skip
        output = kernels.matrix_product(
            x,
            w,
            bias[0] if bias else None,
            Quantization(x_scale, x_zero),
            Quantization(w_scale, w_zero),
            Quantization(y_scale, y_zero),
        )
        return (output,)


class _Sum(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(
        self, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any
    ) -> tuple[np.ndarray]:
        of_a, of_b = Quantization(a_scale, a_zero), Quantization(b_scale, b_zero)
        return (kernels.add(a, b, of_a, of_b, Quantization(y_scale, y_zero)),)


class _GlobalAverage(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(self, x: Any, x_scale: Any, x_zero: Any, y_scale: Any, y_zero: Any) -> tuple[np.ndarray]:
        return (kernels.global_average(x, Quantization(x_scale, x_zero), Quantization(y_scale, y_zero)),)


class _Quantize(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(self, x: Any, scale: Any, zero: Any) -> tuple[np.ndarray]:
        return (kernels.quantize(x, Quantization(scale, zero)),)


class _Dequantize(OpRun):  # type: ignore[misc]
    op_domain = _DOMAIN

    def _run(self, x: Any, scale: Any, zero: Any = None, axis: Any = None) -> tuple[np.ndarray]:
        of_x = Quantization(scale, np.zeros((), x.dtype) if zero is None else zero)
        return (kernels.dequantize(x, of_x, axis),)


# The number of quantized inputs of each operator before its bias.
_INTEGER = {
    "Conv": (_Convolution, 2),
    "Gemm": (_MatrixProduct, 2),
    "Add": (_Sum, 2),
    "GlobalAveragePool": (_GlobalAverage, 1),
}
_OPERATORS = [*(kind for kind, _ in _INTEGER.values()), _Quantize, _Dequantize, *MOVING_OPERATORS]


class IntegerReference:
    """Evaluates an exported model as the runtime's integer kernels do.

    Convolutions, linear layers, residual sums and global averages between quantizers are computed in
    integers and requantized as in onnxruntime. The other operators are element-wise or move data. ONNX's own
    reference implementation computes these operators in float32.

    Args:
        model: The exported model or its file.

    Example:
        >>> from onnx import TensorProto, helper, numpy_helper
        >>> graph = helper.make_graph(
        ...     [helper.make_node("Relu", ["x"], ["y"])], "g",
        ...     [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        ...     [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        ... )
        >>> reference = IntegerReference(helper.make_model(graph))
        >>> reference([np.array([[-1, 2]], np.float32)])[0].tolist()
        [[0.0, 2.0]]
    """

    def __init__(self, model: onnx.ModelProto | str | os.PathLike[str]) -> None:
        if isinstance(model, onnx.ModelProto):
            own = onnx.ModelProto()
            own.CopyFrom(model)
        else:
            own = onnx.load(model)
        graph = Graph(own)
        self.fused = _fuse(graph)
        _follow_quantizers(graph)
        own.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
        own.graph.ClearField("node")
        own.graph.node.extend(graph.sorted_nodes())
        constants = {tensor.name for tensor in own.graph.initializer}
        values = [value for value in own.graph.input if value.name not in constants]
        self._inputs = [value.name for value in values]
        batch = values[0].type.tensor_type.shape.dim[0]
        self._batch = batch.dim_value if batch.HasField("dim_value") else 0
        self._evaluator = ReferenceEvaluator(own, new_ops=_OPERATORS)

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for all images.

        Args:
            inputs: One array per input of the file, each with the images along the first dimension.
        """

        def run(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
            results: Any = self._evaluator.run(None, dict(zip(self._inputs, batch, strict=True)))
            return list(results)

        return run_in_batches(run, inputs, self._batch or len(inputs[0]))


def _fuse(graph: Graph) -> int:
    """Replace each operator between quantizers by its integer form; return the number of replacements."""
    producers, fused = graph.producers(), 0
    for quantize in [node for node in graph.nodes if node.op_type == "QuantizeLinear"]:
        node = producers.get(quantize.input[0])
        if node is not None and node.op_type == "Relu" and _clamps_at_zero(graph, quantize):
            node = producers.get(node.input[0])  # the clamp at the zero point is the ReLU
        if node is None or node.op_type not in _INTEGER or node.domain:
            continue
        kind, count = _INTEGER[node.op_type]
        loads = [producers.get(name) for name in node.input]
        if any(load is None or load.op_type != "DequantizeLinear" for load in loads):
            continue
        inputs = [name for load in loads[:count] if load is not None for name in load.input]
        inputs += quantize.input[1:]
        inputs += [load.input[0] for load in loads[count:] if load is not None]
        if len(inputs) != 3 * count + 2 + len(loads) - count:
            continue  # a quantizer has no explicit zero point
        options = _options(node)
        if options is None:
            continue
        graph.remove(quantize)
        graph.node(kind.__name__, inputs, quantize.output[0], domain=_DOMAIN, **options)
        fused += 1
    return fused


def _follow_quantizers(graph: Graph) -> None:
    """Compute the remaining quantizers as the runtime does, for every opset of the file."""
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and len(node.input) == 3:
            node.op_type, node.domain = _Quantize.__name__, _DOMAIN
            del node.attribute[:]
        elif node.op_type == "DequantizeLinear":
            axis = attributes(node).get("axis", 1)
            node.op_type, node.domain = _Dequantize.__name__, _DOMAIN
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", axis))
        else:
            use_own_operators(node)


def _clamps_at_zero(graph: Graph, quantize: onnx.NodeProto) -> bool:
    zero = graph.constants.get(quantize.input[2]) if len(quantize.input) > 2 else None
    return zero is not None and bool((zero == np.iinfo(zero.dtype).min).all())


def _options(node: onnx.NodeProto) -> dict[str, Any] | None:
    """Return the options for the node's integer form, or `None` if the node has no integer form."""
    given = attributes(node)
    if node.op_type == "Gemm":
        plain: Sequence[tuple[str, float]] = (("alpha", 1.0), ("beta", 1.0), ("transA", 0))
        return (
            {} if given.get("transB", 0) and all(given.get(key, one) == one for key, one in plain) else None
        )
    if node.op_type != "Conv":
        return {}
    if given.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    return {
        "group": given.get("group", 1),
        "pads": given.get("pads", [0, 0, 0, 0]),
        "strides": given.get("strides", [1, 1]),
        "dilations": given.get("dilations", [1, 1]),
    }
