"""Computes constants of a graph once, before the file is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from eq_aimet.deploy.onnx.graph import Graph

__all__ = ["fold_constants"]

# torch writes the widths of a padding as a chain of these operators, and ONNX's shape inference does not
# follow this chain.
_FOLDED = frozenset({
    "Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Gather", "Mod", "Mul", "Reshape", "Slice",
    "Squeeze", "Sub", "Transpose", "Unsqueeze",
})  # fmt: skip
_LARGEST = 1024  # entries of a folded constant: vectors of sizes, and no weights


def fold_constants(graph: Graph) -> None:
    """Replace operators on small constants by their result, in place.

    Args:
        graph: A graph whose nodes are sorted, as an exporter writes them.
    """
    for node in list(graph.nodes):
        inputs = [graph.constants.get(name) for name in node.input]
        is_small = all(value is not None and value.size <= _LARGEST for value in inputs)
        if node.op_type not in _FOLDED or node.domain or len(node.output) != 1 or not is_small:
            continue
        value = _result(node, graph)
        if isinstance(value, np.ndarray) and value.size <= _LARGEST:
            graph.remove(node)
            graph.add_constant(node.output[0], value)


def _result(node: onnx.NodeProto, graph: Graph) -> Any:
    inputs = {name: graph.constants[name] for name in node.input}
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    output = onnx.ValueInfoProto(name=node.output[0])
    model = helper.make_model(
        helper.make_graph([node], "constant", types, [output]), opset_imports=graph.model.opset_import
    )
    return ReferenceEvaluator(model).run(None, inputs)[0]
