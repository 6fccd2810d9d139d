"""Vectors by block: rebuilt when the file is opened, so that layers still run in integers."""

import numpy as np
import onnx
import pytest
from test_integer_arithmetic import INT8, integers, noise, quantized, run

from eq_aimet.deploy.onnx.block_storage import store_blocks
from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.runtimes.onnxruntime import operators_run

pytestmark = pytest.mark.exactness


def wide_layer():
    scales = np.linspace(0.001, 0.02, 128).repeat(8).astype(np.float32)
    bias = integers(128, -4000, 4000, np.int32).repeat(8)
    return quantized("Conv", (2, 6, 5, 5), integers((1024, 6, 1, 1), *INT8), bias, weight_scale=scales)


def test_one_number_for_each_block_is_stored_and_the_outputs_are_equal(tmp_path):
    graph = Graph(wide_layer())
    vectors = [(name, 8) for name in ("b", "w_scale", "b_scale")]

    saved = store_blocks(graph, vectors)
    onnx.save(graph.finish(), tmp_path / "model.onnx")

    assert saved == 3 * 4 * (1024 - 128)
    stored = onnx.load(tmp_path / "model.onnx")
    assert stored.ByteSize() < wide_layer().ByteSize() - 0.9 * saved
    assert "QLinearConv" in {operator.name for operator in operators_run(tmp_path / "model.onnx")}
    assert np.array_equal(run(stored, noise((2, 6, 5, 5))), run(wide_layer(), noise((2, 6, 5, 5))))


def test_vectors_that_differ_within_a_block_or_are_short_stay():
    model = wide_layer()
    graph = Graph(model)

    assert store_blocks(graph, [("b", 16), ("b", 3), ("x_scale", 1), ("nowhere", 8)]) == 0

    assert len(graph.constants["b"]) == 1024
