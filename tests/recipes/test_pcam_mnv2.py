"""The default recipe on tiny networks: its files, its figures, interruptions."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pcam_mnv2
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from eq_aimet import export_model
from eq_aimet.experiments.data import PCamDataset, write_synthetic_pcam
from eq_aimet.experiments.training import best_weights, measure_accuracy
from eq_aimet.experiments.training.checkpoints import read_checkpoint
from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pcam_mnv2.py"
CROP, GROUP, WIDTH = 33, 4, 0.25
PICTURES = (
    "training",
    "table",
    "stability",
    "examples",
    *(f"{kind}-{model}" for kind in ("ranges", "weights") for model in ("conventional", "equivariant")),
)
# A high learning rate, so that twelve steps are enough for logits that differ from image to image.
OPTIONS = (
    f"--crop {CROP} --group {GROUP} --width {WIDTH} --epochs 3 --batch-size 8 --calibration-images 16 "
    "--train-images 32 --valid-images 16 --test-images 24 --learning-rate 0.05"
).split()
NAME = "pcam-32-16-24_crop33_both_c4-channel_width0.25_epochs3_batch8_lr0.05_per-tensor_seed0_calibration16"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pcam"
    return write_synthetic_pcam(folder, train=32, valid=16, test=24, progress=False)


def start(*options):
    # One thread: other work of the machine must not change the order of a sum.
    return subprocess.Popen(
        [sys.executable, "-u", str(RECIPE), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    results = tmp_path_factory.mktemp("whole")
    process = start(*OPTIONS, "--data", data, "--results", results)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return results / NAME, output, errors


@pytest.fixture(scope="module")
def app():
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(pcam_mnv2.main)
    return application


def rows_of(folder):
    return {row["model"]: row for row in json.loads((folder / "table.json").read_text())}


def without_times(rows):
    times = ("fp32_milliseconds", "int8_milliseconds", "latency_ratio")
    for row in rows.values():
        assert all(row["device"].pop(time) > 0.0 for time in times)
    return rows


def test_the_results_are_complete(finished):
    folder, output, errors = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    of_each = {
        f"{model}/{file}"
        for model in ("conventional", "equivariant")
        for file in (
            *("best.ckpt", "last.ckpt", "previous.ckpt", "model.safetensors", "model.onnx"),
            *("model.float.onnx", "model.encodings", "verification.txt", "verification.json"),
        )
    }
    assert files == of_each | {
        "config.json",
        "table.md",
        "table.json",
        "report.html",
        *(f"pictures/{name}.png" for name in PICTURES),
        "equivariant/equalization.txt",
        "equivariant/equalization.json",
    }
    for name in PICTURES:
        assert (folder / "pictures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "equivariant" / "equalization.json").read_text())
    assert "sink" in (folder / "equivariant" / "equalization.txt").read_text()
    assert errors == ""  # no library's noise
    assert not {"Tip", "WARNING", "INFO", "Warning"} & set(output.split())


def test_the_table_is_consistent(finished):
    folder, output, _ = finished
    rows = rows_of(folder)
    assert list(rows) == ["conventional", "equivariant"]
    for row in rows.values():
        assert row["drop"] == row["fp32_accuracy"] - row["int8_accuracy"]
        # Accuracies of 24 test images.
        for name in ("fp32_accuracy", "int8_accuracy"):
            assert row[name] * 24 == pytest.approx(round(row[name] * 24), abs=1e-4)
    assert rows["equivariant"]["int8_error_90"] == 0.0
    assert rows["equivariant"]["fp32_error_90"] < 1e-10
    assert rows["conventional"]["fp32_error_90"] > 1e-6
    assert rows["conventional"]["int8_error_90"] > 0.0
    assert rows["equivariant"]["parameters"] < rows["conventional"]["parameters"]
    markdown = (folder / "table.md").read_text()
    assert sum(line.startswith("| equivariant |") for line in markdown.splitlines()) == 2
    assert "weights limited to [-64, 63]" in markdown
    assert "weights limited to [-64, 63]" in output
    assert f"{rows['conventional']['parameters']:,}" in output


def logits_of(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[None].numpy()})[0] for image in images])


def patches(data):
    return torch.stack([PCamDataset(data, "test", crop=CROP)[index][0] for index in range(24)])


def test_turned_images_get_the_logits_that_the_table_says(finished, data):
    folder, output, _ = finished
    images = patches(data)
    for model, row in rows_of(folder).items():
        file = folder / model / "model.onnx"
        logits = logits_of(file, images)
        assert logits.shape == (24, 2)
        turned = [logits_of(file, torch.rot90(images, turns, dims=(-2, -1))) for turns in (1, 2, 3)]
        same = all(np.array_equal(logits, other) for other in turned)
        device = row["device"]
        assert device["bit_identical"] is same is (model == "equivariant")
        assert device["turns"] == ["90°", "180°", "270°"]
        assert (device["worst_change"] == 0.0) is same
        line = [line for line in output.splitlines() if line.split()[:1] == [model]][-1]
        assert line.split()[-2] == ("yes" if same else "no")


def test_the_files_are_those_of_the_table(finished, data):
    folder, _, _ = finished
    images = patches(data)
    for model, row in rows_of(folder).items():
        device = row["device"]
        files = {kind: folder / model / f"model{kind}" for kind in (".onnx", ".float.onnx", ".encodings")}
        assert device["int8_bytes"] == files[".onnx"].stat().st_size
        assert device["fp32_bytes"] == files[".float.onnx"].stat().st_size
        assert device["size_ratio"] == device["int8_bytes"] / device["fp32_bytes"] < 0.4
        assert 0.0 < device["fp32_milliseconds"] < 1000.0
        assert 0.0 < device["int8_milliseconds"] < 1000.0
        assert json.loads(files[".encodings"].read_text())
        in_float, in_int8 = (logits_of(files[kind], images) for kind in (".float.onnx", ".onnx"))
        assert in_float.shape == (24, 2)
        assert np.ptp(in_float[:, 0]) > 0.0
        # The same function but for the noise of INT8.
        assert np.square(in_int8 - in_float).mean() < np.square(in_float).mean()


def test_the_int8_files_hold_weights_that_saturate_nowhere(finished):
    folder, _, _ = finished
    for model in ("conventional", "equivariant"):
        graph = onnx.load(folder / model / "model.onnx").graph
        weights = [onnx.numpy_helper.to_array(entry) for entry in graph.initializer]
        weights = [weight for weight in weights if weight.dtype == np.int8 and weight.ndim > 1]
        assert len(weights) > 20
        assert min(weight.min() for weight in weights) >= -64
        assert max(weight.max() for weight in weights) == 63


def test_the_verification_is_told_in_text_and_json(finished):
    folder, _, _ = finished
    for model, row in rows_of(folder).items():
        report = json.loads((folder / model / "verification.json").read_text())
        assert report["export"]["is_portable"] is True
        assert report["verification"]["unverified"] == row["device"]["unverified"] == []
        assert report["verification"]["is_bit_exact"] is row["device"]["bit_identical"]
        assert report["verification"]["fidelity"]["reference_difference"] == 0.0
        # Infinite, which JSON has no number for, where file and simulation agree to the last bit.
        assert report["verification"]["fidelity"]["sqnr_to_sim"] in (None, pytest.approx(60.0, abs=40.0))
        text = (folder / model / "verification.txt").read_text()
        assert "weights in [-64, 63]  all" in text
        assert "QLinearConv" in text


def test_the_exported_weights_are_those_of_the_lowest_validation_loss(finished, data):
    folder, _, _ = finished
    records = read_checkpoint(folder / "equivariant" / "last.ckpt")["callbacks"]["History"]["records"]
    best = min(records, key=lambda record: record["valid_loss"])
    model = EquivariantMobileNetV2(width=WIDTH, group=GROUP, input_size=CROP)
    model.load_state_dict(best_weights(folder / "equivariant"))
    plain = export_model(model.eval(), dummy_input=torch.rand(1, 3, CROP, CROP))
    plain.load_state_dict({name: torch.zeros_like(value) for name, value in plain.state_dict().items()})
    plain.load_state_dict(load_file(folder / "equivariant" / "model.safetensors"))

    valid = [PCamDataset(data, "valid", crop=CROP)[index] for index in range(16)]
    images = torch.stack([image for image, _ in valid])
    labels = torch.stack([label for _, label in valid])
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(plain(images), labels)
    assert float(loss) == pytest.approx(best["valid_loss"], rel=1e-4)
    others = [record["valid_loss"] for record in records if record != best]
    assert all(float(loss) < other for other in others)


def test_the_table_has_the_accuracy_of_the_exported_weights(finished, data):
    folder, _, _ = finished
    model = MobileNetV2(width=WIDTH, divisor=GROUP, input_size=CROP)
    model.load_state_dict(best_weights(folder / "conventional"))
    test = [PCamDataset(data, "test", crop=CROP)[index] for index in range(24)]
    batches = [(image[None], label[None]) for image, label in test]
    accuracy = measure_accuracy(copy.deepcopy(model).eval(), batches)
    assert rows_of(folder)["conventional"]["fp32_accuracy"] == accuracy


def test_an_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one(finished, data, tmp_path):
    whole, _, _ = finished
    options = [*OPTIONS, "--data", data, "--results", tmp_path]
    process = start(*options)
    for line in process.stdout:
        if "epoch 1/3" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "Interrupted. All finished epochs are kept; to go on:" in errors
    assert errors.rstrip().endswith("--resume")
    assert not (tmp_path / NAME / "table.json").exists()

    process = start(*options, "--resume")
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "epoch 1/3" not in output.partition("equivariant")[0]
    assert without_times(rows_of(tmp_path / NAME)) == without_times(rows_of(whole))
    for model in ("conventional", "equivariant"):
        left, right = (
            load_file(folder / NAME / model / "model.safetensors") for folder in (whole.parent, tmp_path)
        )
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
        left, right = (folder / NAME / model / "model.onnx" for folder in (whole.parent, tmp_path))
        assert left.read_bytes() == right.read_bytes()


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_the_folder_of_another_configuration_is_not_overwritten(app, finished, data, tmp_path, resume):
    folder = tmp_path / NAME
    folder.mkdir()
    config = json.loads((finished[0] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "data": "/elsewhere/pcam"}))
    result = CliRunner().invoke(app, [*OPTIONS, "--data", str(data), "--results", str(tmp_path), *resume])
    assert result.exit_code == 1
    assert "the results of another configuration (data '/elsewhere/pcam' instead of" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_a_finished_run_is_not_overwritten_without_resume(app, finished, data):
    before = (finished[0] / "table.json").stat().st_mtime_ns
    result = CliRunner().invoke(app, [*OPTIONS, "--data", str(data), "--results", str(finished[0].parent)])
    assert result.exit_code == 1
    assert "results of an earlier run of this configuration" in result.stderr
    assert "Add `--resume`" in result.stderr
    assert (finished[0] / "table.json").stat().st_mtime_ns == before


def test_the_report_stands_alone_and_has_all_pictures(finished):
    folder, output, _ = finished
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(PICTURES)
    assert "http:" not in page
    assert "https:" not in page
    for name, row in rows_of(folder).items():
        assert name in page
        assert f"{row['parameters']:,}" in page
    assert str(folder / "report.html") in output.replace("\n", "")
