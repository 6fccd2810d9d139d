"""One exported file in every runtime: bit-identical under turns, and faults are seen by each runtime."""

import platform
import sys

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import Dense, Residual, convolution, simulate, varied_images
from onnx import numpy_helper
from torch import nn

from eq_aimet import export_onnx, hookimpl, make_portable, plugin_manager, tie_encodings, verify_onnx
from eq_aimet.deploy.onnx.marked_files import mark, marks
from eq_aimet.deploy.runtimes import packages
from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntime
from eq_aimet.errors import EquivarianceError, InvalidArgumentError, MissingPackageError, PluginError
from eq_aimet.plain import GroupMaxPool
from eq_aimet.symmetry.elements import Element

HAS_QNN_WHEEL = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info >= (3, 11)
RUNTIMES = [
    "onnxruntime",
    pytest.param(
        "qnn-htp",
        marks=pytest.mark.skipif(not HAS_QNN_WHEEL, reason="onnxruntime-qnn has no wheel for this platform"),
    ),
    "openvino",
]
AVAILABLE = ("onnxruntime", "qnn-htp", "openvino") if HAS_QNN_WHEEL else ("onnxruntime", "openvino")
QUICK = {"runs": 1, "threads": (1,), "reference_images": 0}


def small_map(seed=0):
    """A map that turns with the image."""
    torch.manual_seed(seed)
    return nn.Sequential(
        convolution(3, 4, 3, order=4, image=True, padding=1),
        nn.ReLU(),
        convolution(4, 4, 3, order=4, depthwise="field", padding=1),
        nn.ReLU(),
        GroupMaxPool((4,) * 4),
        nn.Conv2d(4, 2, 1),
    )


def turned(output, element):
    return element.turn(output) if output.dim() == 4 else output


def export(model, path, **options):
    sim = simulate(model)
    tie_encodings(sim)
    make_portable(sim, varied_images(1))
    export_onnx(sim, varied_images(1), path, **options)
    return sim


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """A simulation of a C4 network and its file with whole weights."""
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    return export(Residual(fields=4), path, storage="plain"), path


@pytest.mark.exactness
@pytest.mark.parametrize(
    "network",
    [
        lambda: Residual(4, "field"),
        lambda: Residual(4, "channel"),
        lambda: Residual(8, "field"),
        Dense,
        small_map,
    ],
    ids=["C4 field-wise", "C4 channel-wise", "C8 field-wise", "C4 dense", "C4 map"],
)
def test_turned_images_give_the_same_bits_on_every_runtime(network, tmp_path):
    sim = export(network(), tmp_path / "model.onnx")

    report = verify_onnx(
        tmp_path / "model.onnx", sim, varied_images(3), runtimes=AVAILABLE, transform_output=turned, **QUICK
    )

    report.assert_bit_exact()
    assert report.is_bit_exact
    assert len(report.runtimes) == len(AVAILABLE)
    assert len({check.runtime for check in report.elements}) == len(AVAILABLE)
    for finding in report.runtimes:
        assert finding.fell_back == ()
        assert finding.sqnr_to_sim > 20
        assert str(finding) in str(report)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_mirrored_image_is_reported(runtime, plain_file, images):
    sim, path = plain_file

    report = verify_onnx(path, sim, images, elements=[Element(0, flip=True)], runtimes=(runtime,), **QUICK)

    assert not report.is_bit_exact
    assert all(check.changed > 0 and check.steps >= 1 for check in report.elements)
    with pytest.raises(EquivarianceError, match=f"not bit-exact on {runtime} "):
        report.assert_bit_exact()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_weight_that_is_a_step_off_is_reported(runtime, tmp_path):
    sim = export(small_map(), tmp_path / "model.onnx", storage="plain")  # a map shows more than a few logits
    model = onnx.load(tmp_path / "model.onnx")
    facts = marks(model)
    del model.metadata_props[:]
    weight = next(
        t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4
    )
    integers = numpy_helper.to_array(weight).copy()
    integers.reshape(-1)[np.abs(integers.reshape(-1).astype(int)).argmax()] -= 1
    weight.CopyFrom(numpy_helper.from_array(integers, weight.name))
    mark(model, **{key: fact for key, fact in facts.items() if key != "checksum"})
    onnx.save(model, tmp_path / "off.onnx")

    report = verify_onnx(
        tmp_path / "off.onnx",
        sim,
        varied_images(4),
        runtimes=(runtime,),
        transform_output=turned,
        **QUICK,
    )

    assert not report.is_bit_exact
    assert sum(check.changed for check in report.elements) > 0


@pytest.mark.parametrize("names", ["qnn", ("onnxruntime", "snpe"), (), None, ("openvino", "openvino"), (7,)])
def test_unknown_runtimes_are_refused(names, plain_file, images):
    sim, path = plain_file

    with pytest.raises(InvalidArgumentError, match=r"`runtimes`.*'onnxruntime', 'qnn-htp', 'openvino'"):
        verify_onnx(path, sim, images, runtimes=names)


@pytest.mark.parametrize(("runtime", "package"), [("qnn-htp", "onnxruntime-qnn"), ("openvino", "openvino")])
def test_a_missing_runtime_is_one_line(runtime, package, plain_file, images, monkeypatch):
    sim, path = plain_file
    monkeypatch.setattr(packages, "find_spec", lambda name: None)

    with pytest.raises(MissingPackageError) as caught:
        verify_onnx(path, sim, images, runtimes=(runtime,))
    assert str(caught.value).endswith(f"Install it: pip install {package}")
    assert "\n" not in str(caught.value)


def test_a_runtime_that_cannot_open_the_file_is_quoted(plain_file, images):
    class Picky:
        """A plugin's runtime that opens nothing."""

        name, has_threads = "picky 1.0", False

        def open(self, path, *, threads):
            raise InvalidArgumentError(
                "path", received="a file with a Conv", expected="one without", remedy=""
            )

    class Plugin:
        @hookimpl
        def eq_aimet_runtimes(self):
            return {"picky": Picky, "mine": OnnxRuntime}

    sim, path = plain_file
    plugin = Plugin()
    plugin_manager().register(plugin)
    try:
        report = verify_onnx(path, sim, images, runtimes=("picky", "mine"), **QUICK)
    finally:
        plugin_manager().unregister(plugin)

    assert not report.is_bit_exact
    assert report.runtimes[0].failure == "a file with a Conv"
    assert report.runtimes[1].failure == ""
    with pytest.raises(EquivarianceError, match=r"picky 1\.0: a file with a Conv"):
        report.assert_bit_exact()


@pytest.mark.parametrize(
    "result", [{"openvino": OnnxRuntime}, {"mine": 3}, ["mine"], {"mine": lambda: 1 / 0}]
)
def test_plugins_that_return_something_else(result, plain_file, images):
    class Plugin:
        @hookimpl
        def eq_aimet_runtimes(self):
            return result

    sim, path = plain_file
    plugin = Plugin()
    plugin_manager().register(plugin)
    try:
        with pytest.raises(PluginError, match="Correct the plugin, or unregister it"):
            verify_onnx(path, sim, images, runtimes=("mine",))
    finally:
        plugin_manager().unregister(plugin)


@pytest.mark.skipif(not HAS_QNN_WHEEL, reason="onnxruntime-qnn has no wheel for this platform")
def test_operators_that_fall_back_are_named(tmp_path):
    from eq_aimet.deploy.runtimes.qnn_htp import QnnHtp

    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Det", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "det.onnx")

    assert QnnHtp().open(tmp_path / "det.onnx").fell_back == ("Det",)
    with pytest.raises(InvalidArgumentError, match=r"a file that qnn-htp .* can't open"):
        QnnHtp().open(tmp_path / "none.onnx")


def test_no_tensor_of_the_rearranged_file_has_more_than_four_dimensions(tmp_path):
    export(Residual(4, "field"), tmp_path / "model.onnx", storage="plain")

    inferred = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "model.onnx"), data_prop=True).graph

    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in inferred.value_info}
    inner = [ranks[name] for node in inferred.node if node.op_type == "Gather" for name in node.output]
    assert inner == [4]
    assert max(rank for name, rank in ranks.items()) <= 5  # the group pooling has five


def test_a_network_that_is_not_equivariant_itself_is_named(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(  # on 17 pixels, windows of 2 do not read the last row and column
        convolution(3, 4, 2, order=4, image=True, stride=2), nn.ReLU(), GroupMaxPool((4,) * 4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip
    sim = export(network, tmp_path / "model.onnx")

    report = verify_onnx(tmp_path / "model.onnx", sim, varied_images(4), **QUICK)

    assert not report.is_bit_exact
    assert report.network_error > 1e-4
    assert len(report.advice) == 1
    assert report.advice[0].startswith("The FP32 network itself is not equivariant on these images")
