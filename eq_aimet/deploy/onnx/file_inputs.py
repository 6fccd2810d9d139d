"""The inputs of an exported file: names, shapes, types, and the range that an input covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["FileInput", "file_inputs"]


@dataclass(frozen=True)
class FileInput:
    """One input of an exported file.

    Attributes:
        name: The input's name in the file.
        shape: The input's shape, the batch size first.
        dtype: The input's type.
        range: The lowest and the highest value that the input's quantizer covers; `None` without a quantizer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    range: tuple[float, float] | None


def file_inputs(model: onnx.ModelProto) -> tuple[FileInput, ...]:
    """Return the inputs of a file in their order."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        dims = value.type.tensor_type.shape.dim
        shape = tuple(dim.dim_value for dim in dims)  # `load_marked` refuses sizes that are not fixed
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        found.append(FileInput(value.name, shape, dtype, _range(model, value.name, constants)))
    return tuple(found)


def _range(
    model: onnx.ModelProto, name: str, constants: dict[str, onnx.TensorProto]
) -> tuple[float, float] | None:
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] != name or len(node.input) < 3:
            continue
        if node.input[1] not in constants or node.input[2] not in constants:
            continue
        scale = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
        zero = numpy_helper.to_array(constants[node.input[2]])
        limits = np.iinfo(zero.dtype)
        lowest = (int(limits.min) - zero.astype(np.float64)) * scale
        highest = (int(limits.max) - zero.astype(np.float64)) * scale
        return float(lowest.min()), float(highest.max())
    return None
