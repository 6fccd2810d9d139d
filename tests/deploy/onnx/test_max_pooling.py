"""Maximum pooling with positions against onnxruntime, on many grids, windows, paddings and strides."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from eq_aimet.deploy.onnx.integer_reference import IntegerReference
from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntimeFile, open_session


def max_pooling(shape, **options):
    """A model that returns the maxima and their positions."""
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y", "at"], **options)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape)),
            helper.make_tensor_value_info("at", TensorProto.INT64, [None] * len(shape)),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 11, 11), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ((2, 3, 11, 8), {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 1]}),
        ((1, 6, 9, 9), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ((3, 2, 12, 12), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ((2, 2, 10, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ((2, 2, 7, 7), {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        ((2, 2, 13, 13), {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        ((2, 2, 70, 70), {"kernel_shape": [1, 1]}),
        ((2, 3, 15), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ],
)
def test_maxima_and_positions(shape, options):
    model = max_pooling(shape, **options)
    # few values, so that windows hold equal maxima; negative ones, so that zeros of a padding would show
    x = -np.random.default_rng(0).integers(1, 9, shape).astype(np.float32)

    values, positions = IntegerReference(model)([x])

    expected = OnnxRuntimeFile(open_session(model.SerializeToString())).run([x])
    assert (values == expected[0]).all()
    assert (positions == expected[1]).all()
    assert (x.ravel()[positions] == values).all()
