"""The step of each output's quantizer in an exported file."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

__all__ = ["output_steps"]

# Operators that do not change the values.
_MOVING = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"})


def output_steps(model: onnx.ModelProto) -> list[float | None]:
    """Return the scale of each output's quantizer, `None` for an output without one."""
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    steps: list[float | None] = []
    for value in model.graph.output:
        node = producers.get(value.name)
        while node is not None and node.op_type in _MOVING:
            node = producers.get(node.input[0])
        is_quantized = node is not None and node.op_type == "DequantizeLinear" and node.input[1] in constants
        scale = numpy_helper.to_array(constants[node.input[1]]) if node is not None and is_quantized else None
        steps.append(float(scale.reshape(-1)[0]) if scale is not None and scale.size == 1 else None)
    return steps
