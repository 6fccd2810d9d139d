"""Integer kernels against the runtime on all inputs; operators rewritten, biases aligned."""

import numpy as np
import pytest
from deployed_networks import run_file
from onnx import TensorProto, helper, numpy_helper

from eq_aimet.deploy.onnx.arrangement import arrange
from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.onnx.integer_reference import IntegerReference
from eq_aimet.deploy.onnx.quantized_bias import align_biases
from eq_aimet.deploy.runtimes.onnxruntime import open_session, operators_run

pytestmark = pytest.mark.exactness

SCALES = {"x": 0.02, "w": 0.013, "y": 0.11}
ZEROS = {"x": np.uint8(7), "w": np.int8(0), "y": np.uint8(120)}


def quantized(op_type, shape, weight=None, bias=None, bias_scale=None, weight_scale=None, **options):
    """A model: quantize, one operator between quantizers, dequantize."""
    weight_scale = np.float32(SCALES["w"]) if weight_scale is None else weight_scale
    exact = np.float32(SCALES["x"]) * np.asarray(weight_scale, np.float32)
    constants = {f"{name}_scale": np.float32(scale) for name, scale in SCALES.items()}
    constants |= {f"{name}_zero": zero for name, zero in ZEROS.items()}
    constants["w_scale"] = np.asarray(weight_scale, np.float32)
    constants["w_zero"] = np.zeros(constants["w_scale"].shape, np.int8)
    inputs = ["x_d"]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
    ]
    if weight is not None:
        constants["w"] = weight
        nodes.append(helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["w_d"], axis=0))
        inputs.append("w_d")
    if bias is not None:
        constants["b"] = bias
        constants["b_scale"] = np.asarray(exact if bias_scale is None else bias_scale, np.float32)
        constants["b_zero"] = np.zeros(constants["b_scale"].shape, np.int32)
        nodes.append(helper.make_node("DequantizeLinear", ["b", "b_scale", "b_zero"], ["b_d"], axis=0))
        inputs.append("b_d")
    nodes += [
        helper.make_node(op_type, inputs, ["out"], **options),
        helper.make_node("QuantizeLinear", ["out", "y_scale", "y_zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "y_scale", "y_zero"], ["y"]),
    ]
    rank = len(shape) if options.get("keepdims", 1) else 2
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def integers(shape, low, high, dtype, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def run(model, images):
    return run_file(model.SerializeToString(), images)


def noise(shape, seed=3):
    return np.random.default_rng(seed).uniform(-0.3, 5.2, shape).astype(np.float32)


INT8 = (-63, 64, np.int8)
CASES = {
    "1×1": ({"weight": integers((8, 16, 1, 1), *INT8)}, (2, 16, 9, 9)),
    "3×3 with stride": (
        {"weight": integers((8, 6, 3, 3), *INT8), "strides": [2, 2], "pads": [1, 1, 1, 1]},
        (2, 6, 9, 9),
    ),
    "depthwise": (
        {"weight": integers((16, 1, 3, 3), *INT8), "group": 16, "pads": [1, 1, 1, 1]},
        (2, 16, 9, 9),
    ),
    "grouped": (
        {"weight": integers((16, 4, 3, 3), *INT8), "group": 4, "pads": [1, 1, 1, 1]},
        (2, 16, 9, 9),
    ),
    "dilated, one scale per channel": (
        {
            "weight": integers((8, 6, 3, 3), *INT8),
            "weight_scale": np.linspace(0.001, 0.02, 8),
            "dilations": [2, 2],
        },
        (2, 6, 9, 9),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_convolutions_agree_with_the_runtime(name):
    options, shape = CASES[name]
    bias = integers(len(options["weight"]), -4000, 4000, np.int32)
    model = quantized("Conv", shape, bias=bias, **options)

    reference = IntegerReference(model)

    images = noise(shape)
    assert reference.fused == 1
    outputs = run(model, images)
    assert np.array_equal(reference([images])[0], outputs)
    assert len(np.unique(outputs)) > 50


@pytest.mark.parametrize("op_type", ["Gemm", "GlobalAveragePool"])
def test_linear_layers_and_averages_agree_with_the_runtime(op_type):
    images = noise((64, 40) if op_type == "Gemm" else (64, 40, 7, 7))
    options = {}
    if op_type == "Gemm":
        options = {
            "weight": integers((12, 40), *INT8),
            "bias": integers(12, -900, 900, np.int32),
            "transB": 1,
        }
    model = quantized(op_type, images.shape, **options)

    reference = IntegerReference(model)

    assert reference.fused == 1
    assert np.array_equal(reference([images])[0], run(model, images))


@pytest.mark.parametrize("seed", range(6))
def test_sums_agree_with_the_runtime_on_all_pairs(seed):
    generator = np.random.default_rng(seed)
    nodes, constants, values = [], {}, []
    for name in "ab":
        constants |= {
            f"{name}s": np.float32(generator.uniform(0.01, 0.1)),
            f"{name}z": np.uint8(generator.integers(256)),
        }
        nodes.append(helper.make_node("DequantizeLinear", [name, f"{name}s", f"{name}z"], [f"{name}d"]))
        values.append(helper.make_tensor_value_info(name, TensorProto.UINT8, [65536]))
    constants |= {"ys": np.float32(generator.uniform(0.01, 0.1)), "yz": np.uint8(128)}
    nodes += [
        helper.make_node("Add", ["ad", "bd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        values,
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [65536])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    first, second = (grid.ravel().astype(np.uint8) for grid in np.meshgrid(range(256), range(256)))

    from eq_aimet.deploy.onnx.integer_kernels import Quantization, add

    sums = add(first, second, *(Quantization(constants[f"{n}s"], constants[f"{n}z"]) for n in "aby"))

    expected = open_session(model.SerializeToString()).run(None, {"a": first, "b": second})[0]
    assert np.array_equal(sums, expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathers_along_long_axes(axis):
    shape = (80, 90)
    positions = np.random.default_rng(0).integers(0, shape[axis], (70, 70))
    graph = helper.make_graph(
        [helper.make_node("GatherElements", ["x", "positions"], ["y"], axis=axis)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(positions, "positions")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = noise(shape)
    session = open_session(model.SerializeToString())
    expected = session.run(None, {"x": images})[0]
    gathered = IntegerReference(model)._evaluator.run(None, {"x": images})[0]
    assert np.array_equal(gathered, expected)


def arranged(model):
    copy = type(model)()
    copy.CopyFrom(model)
    graph = Graph(copy)
    rewritten = arrange(graph)
    return graph.finish(), rewritten


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("groups", "size", "padding"), [(5, 4, 1), (3, 8, 0)])
def test_grouped_convolutions_become_depthwise_ones(groups, size, padding, stride):
    channels = groups * size
    model = quantized(
        "Conv",
        (2, channels, 9, 9),
        weight=integers((channels, size, 3, 3), -63, 64, np.int8),
        bias=integers(channels, -4000, 4000, np.int32),
        group=groups,
        pads=[padding] * 4,
        strides=[stride] * 2,
    )

    other, rewritten = arranged(model)

    assert [entry.into for entry in rewritten] == [f"a depthwise convolution 3×{3 * size}"]
    images = noise((2, channels, 9, 9))
    assert np.array_equal(run(other, images), run(model, images))


def test_windows_are_averaged_in_integers(tmp_path):
    import onnx

    shape = (2, 6, 9, 9)
    model = quantized("AveragePool", shape, kernel_shape=[3, 3], strides=[2, 2])

    other, rewritten = arranged(model)
    onnx.save(other, tmp_path / "model.onnx")

    assert [entry.into for entry in rewritten] == ["a depthwise convolution with ones"]
    assert "QLinearConv" in {operator.name for operator in operators_run(tmp_path / "model.onnx")}
    images = noise(shape)
    turned = run(other, np.rot90(images, axes=(2, 3)).copy())
    assert np.array_equal(np.rot90(run(other, images), axes=(2, 3)), turned)
    assert np.abs(run(other, images) - run(model, images)).max() <= SCALES["y"] * 1.01  # one step


@pytest.mark.parametrize("keepdims", [0, 1])
def test_means_over_the_grid_become_global_averages(keepdims, tmp_path):
    import onnx

    shape = (2, 6, 9, 9)
    model = quantized("ReduceMean", shape, axes=[2, 3], keepdims=keepdims)

    other, rewritten = arranged(model)
    onnx.save(other, tmp_path / "model.onnx")

    assert [entry.into for entry in rewritten] == ["a global average pooling"]
    operators = operators_run(tmp_path / "model.onnx")
    assert "QLinearGlobalAveragePool" in {operator.name for operator in operators}
    assert not any(operator.depends_on_order for operator in operators)
    images = noise(shape)
    assert run(other, images).shape == run(model, images).shape
    assert np.abs(run(other, images) - run(model, images)).max() <= SCALES["y"] * 1.01


def test_an_average_without_the_padding_is_left_alone():
    model = quantized("AveragePool", (2, 6, 9, 9), kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    assert arranged(model)[1] == ()


def test_float_sums_are_reported_as_depending_on_the_order(tmp_path):
    import onnx

    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")

    (operator,) = operators_run(tmp_path / "model.onnx")

    assert (operator.name, operator.arithmetic, operator.depends_on_order) == (
        "GlobalAveragePool",
        "float",
        True,
    )


def test_biases_of_another_scale_are_brought_to_that_of_the_sums(tmp_path):
    import onnx

    shape, weight = (2, 16, 9, 9), integers((8, 16, 1, 1), *INT8)
    exact = np.float32(SCALES["x"]) * np.float32(SCALES["w"])
    bias = np.arange(-4, 4).astype(np.int32) * 500
    right = quantized("Conv", shape, weight, bias)
    wrong = quantized("Conv", shape, weight, bias * 16, bias_scale=exact / 16)
    onnx.save(wrong, tmp_path / "wrong.onnx")
    assert any(operator.depends_on_order for operator in operators_run(tmp_path / "wrong.onnx"))

    graph = Graph(wrong)
    assert align_biases(graph) == (("b",), ())
    onnx.save(graph.finish(), tmp_path / "aligned.onnx")

    assert not any(operator.depends_on_order for operator in operators_run(tmp_path / "aligned.onnx"))
    images = noise(shape)
    assert np.array_equal(run(wrong, images), run(right, images))
    assert align_biases(Graph(right)) == ((), ())
