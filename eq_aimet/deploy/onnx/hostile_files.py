"""Refuses ONNX files that would read other files, run other code, or exhaust the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx

__all__ = ["LARGEST_FILE", "reason_to_refuse"]

LARGEST_FILE = 2**31 - 1  # bytes; protobuf reads no more
_LARGEST_VALUE = 2**29  # bytes of one tensor
_LARGEST_SUM = 2**32  # bytes of all tensors together
# Operators whose output can be far larger than their inputs, because values of the inputs set its size.
_GROWING = frozenset({
    "AffineGrid", "Bernoulli", "CenterCropPad", "Col2Im", "ConstantOfShape", "Expand", "EyeLike",
    "GridSample", "MaxUnpool", "Multinomial", "OneHot", "Pad", "RandomNormal", "RandomNormalLike",
    "RandomUniform", "RandomUniformLike", "Range", "Resize", "ScatterND", "Tile", "Upsample",
})  # fmt: skip


def reason_to_refuse(model: onnx.ModelProto) -> str:
    """Return why an ONNX model must not be run, or an empty string.

    The model may hold ONNX's own operators, except control flow. All its tensors must lie in the file itself
    and have the number of bytes that their shapes need. Each tensor must stay below 512 MiB, and all tensors
    together below 4 GiB. These limits also apply to the tensors that the operators compute.
    """
    if any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import) or model.functions:
        return "whose operators are not ONNX's own"
    if model.graph.sparse_initializer or model.training_info:
        return "which holds sparse tensors or a training graph"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            return f"with the operator {node.domain}.{node.op_type}, which is not ONNX's own"
        if any(entry.HasField("g") or entry.graphs for entry in node.attribute):
            return f"with the control flow operator {node.op_type}"
    for tensor in _tensors(model):
        unfit = _unfit_tensor(tensor)
        if unfit:
            return unfit
    return _unfit_structure(model) or _unfit_sizes(model)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for entry in node.attribute:
            if entry.HasField("t"):
                yield entry.t
            yield from entry.tensors


def _unfit_tensor(tensor: onnx.TensorProto) -> str:
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        return f"whose tensor `{tensor.name}` lies in another file"
    try:
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        return f"whose tensor `{tensor.name}` has an unknown type"
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) * itemsize > _LARGEST_VALUE:
        return f"whose tensor `{tensor.name}` has the shape {tuple(tensor.dims)}"
    try:
        onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # noqa: BLE001, the decoder raises errors of many types
        return f"whose tensor `{tensor.name}` is damaged ({error})"
    return ""


def _unfit_structure(model: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # noqa: BLE001, the checker's errors have no common base class
        return f"which is not valid ONNX ({next(iter(str(error).splitlines()), type(error).__name__)})"
    if not model.graph.input or not model.graph.output:
        return "without inputs or outputs"
    return ""


def _unfit_sizes(model: onnx.ModelProto) -> str:
    """Return the reason if a value would be too large or its size is unknown, else an empty string."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:  # noqa: BLE001
        return f"whose shapes contradict each other ({error})"
    sizes: dict[str, int] = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if not value.type.tensor_type.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
            continue
        shape = [dim.dim_value for dim in dims]
        if min(shape, default=0) < 0 or math.prod(shape) * _itemsize(value) > _LARGEST_VALUE:
            return f"whose value `{value.name}` has the shape {tuple(shape)}"
        sizes[value.name] = math.prod(shape) * _itemsize(value)
    if sum(sizes.values()) > _LARGEST_SUM:
        return f"whose values need {sum(sizes.values()):,} bytes"
    for value in inferred.input:
        if value.name not in sizes:
            return f"whose input `{value.name}` has no fixed shape"
    for node in model.graph.node:
        if node.op_type in _GROWING and any(name not in sizes for name in node.output if name):
            return f"with an operator {node.op_type} that makes a tensor of unknown size"
    return ""


def _itemsize(value: onnx.ValueInfoProto) -> int:
    try:
        return int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).itemsize)
    except (KeyError, TypeError):
        return 8
