"""What `export_onnx` and `verify_onnx` refuse, with the text that says why; nothing half-written remains."""

import errno
import json
import os

import onnx
import pytest
import torch
from deployed_networks import SIZE, Residual, simulate
from onnx import TensorProto, helper
from torch import nn

from eq_aimet import export_onnx, tie_encodings, verify_onnx
from eq_aimet.aimet.onnx import export as onnx_export
from eq_aimet.deploy.onnx import marked_files
from eq_aimet.deploy.runtimes import onnxruntime as runtime
from eq_aimet.errors import DataError, InvalidArgumentError

IMAGE = torch.rand(1, 3, SIZE, SIZE)


def test_encodings_that_are_not_tied(tmp_path):
    sim = simulate(Residual(order=8), per_channel=True)
    quantizer = sim.model.stem[0].param_quantizers["weight"]
    with torch.no_grad():
        quantizer.min[1] *= 1.5
        quantizer.max[1] *= 1.5

    with pytest.raises(
        InvalidArgumentError, match=r"of `stem\.0` that differ .* Call `tie_encodings\(sim\)`"
    ):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")

    tie_encodings(sim)
    export_onnx(sim, IMAGE, tmp_path / "model.onnx")


def test_a_weight_that_is_not_symmetric_is_named_with_the_distance(tmp_path):
    model = Residual()
    with torch.no_grad():
        model.head[0].weight[0, 0] += 0.1
    sim = simulate(model)

    with pytest.raises(
        InvalidArgumentError, match=r"`head\.0` that is not symmetric: 1 of \d+ orbits .* steps"
    ):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_bias_that_is_not_symmetric_is_named(tmp_path):
    model = Residual()
    with torch.no_grad():
        model.head[0].bias[0] += 0.1
    sim = simulate(model)

    with pytest.raises(InvalidArgumentError, match=r"a bias of `head\.0` that is not symmetric"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_no_encodings(tmp_path):
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(nn.Sequential(nn.Conv2d(3, 4, 3)), dummy_input=IMAGE)

    with pytest.raises(InvalidArgumentError, match=r"Call `sim\.compute_encodings"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".", "a folder; expected the name of the file"),
        ("model.pt", r"a name that ends in `\.onnx`"),
        ("nowhere/model.onnx", "in a folder that does not exist"),
    ],
)
def test_paths(exported, tmp_path, path, text):
    sim, *_ = exported

    with pytest.raises(InvalidArgumentError, match=text):
        export_onnx(sim, IMAGE, tmp_path / path)


def test_a_folder_that_cannot_be_written_to(exported, tmp_path, monkeypatch):
    sim, *_ = exported
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    with pytest.raises(InvalidArgumentError, match="in a folder that can't be written to"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")


def test_a_full_disk_leaves_the_older_file_whole(exported, tmp_path, monkeypatch):
    sim, *_ = exported
    (tmp_path / "model.onnx").write_bytes(b"older")

    def save(model, path, **options):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_export.onnx, "save", save)
    with pytest.raises(DataError, match=r"received no space left on the device"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")

    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("model.onnx", b"older")]


def test_storage_opset_and_input(exported, tmp_path):
    sim, *_ = exported
    path = tmp_path / "model.onnx"

    with pytest.raises(
        InvalidArgumentError, match='`storage`: received \'small\'; expected "orbits" or "plain"'
    ):
        export_onnx(sim, IMAGE, path, storage="small")
    with pytest.raises(InvalidArgumentError, match="`opset_version`: received 11; expected a whole number"):
        export_onnx(sim, IMAGE, path, opset_version=11)
    with pytest.raises(
        InvalidArgumentError,
        match=r"`dummy_input`: received \(1, 1, 5, 5\) of .*, on which the model",
    ):
        export_onnx(sim, torch.rand(1, 1, 5, 5), path)


def test_the_files_beside(exported):
    _, path, report = exported

    encodings = json.loads(path.with_suffix(".encodings").read_text())
    names = {entry["name"] for entry in encodings["param_encodings"] + encodings["activation_encodings"]}
    assert "stem.0.weight" in names
    float_model = onnx.load(report.float_model)
    known = {tensor.name for tensor in float_model.graph.initializer}
    known |= {name for node in float_model.graph.node for name in (*node.input, *node.output)}
    assert names <= known  # what a converter looks up
    assert {file.name for file in path.parent.iterdir()} == {
        "model.onnx",
        "model.encodings",
        "model.float.onnx",
    }


def other_file(opset=17):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_files_that_are_not_ours(exported, images, tmp_path):
    sim, *_ = exported
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").write_bytes(b"")
    onnx.save(other_file(), tmp_path / "other.onnx")

    for name, text in {
        "text.onnx": "which is not an ONNX file",
        "empty.onnx": "did not write",
        "other.onnx": "an ONNX file that `export_onnx` did not write",
        "none.onnx": "which does not exist",
        ".": "a folder",
    }.items():
        with pytest.raises(InvalidArgumentError, match=text):
            verify_onnx(tmp_path / name, sim, images)


def test_old_opsets_and_runtimes(exported, images, tmp_path, monkeypatch):
    sim, path, _ = exported
    model = other_file(opset=11)
    marked_files.mark(model, storage="plain")
    onnx.save(model, tmp_path / "old.onnx")

    with pytest.raises(InvalidArgumentError, match="of opset 11, which is older than 13"):
        verify_onnx(tmp_path / "old.onnx", sim, images)
    monkeypatch.setattr(runtime.onnxruntime, "__version__", "1.9.0")
    with pytest.raises(InvalidArgumentError, match=r"for onnxruntime 1\.9\.0; expected onnxruntime 1\.17"):
        verify_onnx(path, sim, images)


def test_images_and_sims_that_do_not_fit(exported, images):
    sim, path, _ = exported

    with pytest.raises(InvalidArgumentError, match=r"shape \(4, 3, 9, 9\) .*; expected finite, square"):
        verify_onnx(path, sim, images[..., :9, :9])
    with pytest.raises(InvalidArgumentError, match=r"square images of shape \(images, 3, 17, 17\)"):
        verify_onnx(path, sim, images[:0])
    other = simulate(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    with pytest.raises(InvalidArgumentError, match="`sim`: received a simulation with other weights"):
        verify_onnx(path, other, images, reference_images=0)
