"""Weights by representatives: what is stored, what is rebuilt, what is refused."""

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import SIZE, Residual, convolution, d4_network
from onnx import TensorProto, helper, numpy_helper

from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.onnx.layer_orbits import LayerOrbits
from eq_aimet.deploy.onnx.orbit_storage import compact_cells, store_orbits
from eq_aimet.deploy.runtimes.onnxruntime import open_session
from eq_aimet.symmetry import weight_orbits

pytestmark = pytest.mark.exactness


def file_with(weight):
    """A model that gives out a constant."""
    output = helper.make_tensor_value_info("y", TensorProto.INT8, list(weight.shape))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [output],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


LAYERS = {
    "1×1": (convolution(16, 12, order=4), 4),
    "1×1 of C8": (convolution(8, 12, order=8), 8),
    "3×3": (convolution(6, 5, 3, order=4), 4),
    "3×3 of C8": (convolution(6, 5, 3, order=8), 2),
    "channel-wise": (convolution(40, 40, 3, order=4, depthwise="channel"), 4),
    "field-wise": (convolution(20, 20, 3, order=4, depthwise="field"), 4),
    "lifting": (convolution(8, 12, 3, order=4, image=True), 4),
    "D4": (d4_network()[2], 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_representative_is_stored_and_the_weight_rebuilt(name):
    layer, smaller = LAYERS[name]
    weight = (layer.weight.detach() * 1000).round().clamp(-127, 127).to(torch.int8).numpy()
    blocks = layer.eq_aimet_blocks
    columns = blocks.blocks_in if layer.groups == 1 else (weight.shape[1],)
    orbits = weight_orbits(layer).numpy()
    graph = Graph(file_with(weight))

    (stored,) = store_orbits(graph, [LayerOrbits("layer", "w", orbits, blocks.blocks_out, columns)])
    model = graph.finish()

    assert stored.reason == ""
    assert stored.bytes_plain == weight.size
    assert stored.bytes_stored <= weight.size / smaller
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    assert np.array_equal(open_session(model.SerializeToString()).run(None, {})[0], weight)


def test_the_runtime_rebuilds_when_it_opens_the_file(exported, tmp_path):
    _, path, report = exported
    assert any(not weight.reason for weight in report.weights)

    open_session(path, optimized=tmp_path / "optimized.onnx")

    types = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert "Gather" not in types
    assert "Gather" in {node.op_type for node in onnx.load(path).graph.node}


def test_cells_that_differ_are_stored_whole():
    weight = np.arange(64, dtype=np.int8).reshape(16, 4, 1, 1).repeat(16, 1)
    orbits = np.arange(weight.size).reshape(weight.shape)
    orbits[0, 1] = orbits[0, 0]  # in the first cell alone
    graph = Graph(file_with(weight))

    (stored,) = store_orbits(graph, [LayerOrbits("layer", "w", orbits, (4,) * 4, (4,) * 16)])

    assert stored.reason == "its group mixes blocks"
    assert stored.bytes_stored == stored.bytes_plain == weight.size


def test_weights_that_the_exporter_renamed_or_rearranged_are_reported():
    weight = np.zeros((4, 8, 1, 1), np.int8)
    orbits = np.zeros((8, 4, 1, 1), np.int64)
    graph = Graph(file_with(weight))

    rearranged, missing = store_orbits(
        graph,
        [LayerOrbits("a", "w", orbits, (8,), (4,)), LayerOrbits("b", "elsewhere", orbits, (8,), (4,))],
    )

    assert rearranged.reason == "the exporter rearranged its weight"
    assert missing.reason == "its weight is not in the file under its name"


def test_orbits_of_equal_values_share_a_representative():
    values = np.array([[1, 1, 2, 2]])

    compact = compact_cells(values, np.array([[0, 1, 2, 3]]), 1, 2)

    assert compact.representatives.tolist() == [[[1, 2]]]
    assert compact.pattern.tolist() == [[[0], [0]]]


def test_files_by_orbit_are_smaller(exported, tmp_path):
    from eq_aimet import export_onnx

    sim, path, report = exported
    plain = export_onnx(sim, torch.rand(1, 3, SIZE, SIZE), tmp_path / "plain.onnx", storage="plain")

    assert report.file_bytes == path.stat().st_size
    assert report.file_bytes < 0.7 * plain.file_bytes
    assert Residual.__name__ not in str(report)
