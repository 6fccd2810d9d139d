"""The tables of docs/results.md, from tiny trainings."""

import json
from dataclasses import replace

import evidence as module
import evidence_figures
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from eq_aimet.experiments.data import write_synthetic_pcam
from eq_aimet.models import MobileNetV2


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setattr(module, "FRACTIONS", (1.0, 0.5))
    monkeypatch.setattr(evidence_figures, "STABILITY_IMAGES", 8)
    small = {"group": 4, "width": 0.25, "crop": 33, "epochs": 1, "batch_size": 8, "calibration_images": 8}
    monkeypatch.setattr(module, "TISSUE", replace(module.TISSUE, **small))
    monkeypatch.setattr(module, "DIGITS", replace(module.DIGITS, **small))
    steps = evidence_figures.STEPS
    first_and_last = {name: steps[name] for name in (next(iter(steps)), list(steps)[-1])}
    monkeypatch.setattr(evidence_figures, "STEPS", first_and_last)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_synthetic_pcam(folder / "nuclei_in_pcam_layout", train=16, valid=8, test=16, progress=False)
    return folder


def invoke(recipe, *options):
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(recipe.main)
    return CliRunner().invoke(app, ["--width", "0.25", *map(str, options)])


def test_tables_are_what_was_measured_and_are_put_into_the_page(recipe, data, tmp_path, monkeypatch):
    page = tmp_path / "results.md"
    page.write_text("# Results\n<!-- figures -->\nprevious table\n<!-- /figures -->\nafter\n")
    monkeypatch.setattr(recipe, "PAGE", page)
    options = ["--data", data, "--results", tmp_path / "runs", "--only", "tissue", "--seeds", 2]
    result = invoke(recipe, *options)
    assert result.exit_code == 0, result.stderr

    files = sorted((tmp_path / "runs").glob("*/accuracies-per-tensor.json"))
    assert len(files) == 14  # two networks with each of two fractions, three with all images; two seeds
    whole = [
        json.loads(file.read_text())["INT8"]["accuracy"]
        for file in files
        if "-16-8-16_crop33_conventional_" in file.parent.name
    ]
    network = MobileNetV2(2, width=0.25, divisor=4, input_size=33)
    start = f"| MobileNetV2 | {sum(weight.numel() for weight in network.parameters()):,} | 16 (100%) |"
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(start)]
    assert f"{100 * np.mean(whole):.1f} ± {100 * np.std(whole, ddof=1):.1f} %" in line
    steps = [line for line in result.stdout.splitlines() if line.startswith("| eq_aimet: calibrated without")]
    assert len(steps) == 4  # channel-wise and field-wise, weights per tensor and per channel
    assert all("| 0 |" in line for line in steps)  # 90° error

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    again = invoke(recipe, *options, "--write")
    assert again.exit_code == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    assert after == before
    written = page.read_text()
    assert line in written
    assert written.startswith("# Results\n")
    assert written.endswith("after\n")
    assert "previous table" not in written
    assert str(tmp_path) not in written


def test_the_fewer_images_the_more_epochs(recipe):
    whole = replace(recipe.TISSUE, train_images=1000, epochs=4)
    assert recipe.with_fraction(whole, 1.0) == whole
    part = recipe.with_fraction(whole, 0.1)
    assert (part.train_images, part.epochs, part.calibration_images) == (100, 40, 8)
    assert recipe.with_fraction(whole, 0.01).epochs == recipe.MOST_EPOCHS


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--only", "cats"), "`--only`: received 'cats'; expected one of 'tissue', 'digits', 'all'"),
        (("--seeds", 0), "`--seeds`: received 0; expected an integer of at least 1"),
        (("--only", "digits"), "mnist.npz`: received no such file"),
    ],
)
def test_wrong_options_are_one_clear_line(recipe, data, tmp_path, options, text):
    result = invoke(recipe, "--data", data, "--results", tmp_path / "runs", *options)
    assert result.exit_code == 1
    assert text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()
