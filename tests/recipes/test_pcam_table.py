"""The recipe of the whole table, on two tiny networks."""

import json

import pcam_table
import pytest
import typer
from typer.testing import CliRunner

from eq_aimet.experiments.data import write_synthetic_pcam

OPTIONS = [
    *("--crop", "33", "--width", "0.25", "--epochs", "1"),
    *("--batch-size", "8", "--calibration-images", "8"),
]
NETWORKS = (
    {"architecture": "mobilenet", "model": "conventional", "group": 4},
    {"architecture": "mobilenet", "model": "equivariant", "group": 4},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pcam"
    return write_synthetic_pcam(folder, train=16, valid=8, test=16, progress=False)


def invoke(*options):
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(pcam_table.main)
    return CliRunner().invoke(app, [*OPTIONS, *map(str, options)])


def test_the_table_has_all_networks_and_trains_none_twice(data, tmp_path, monkeypatch):
    assert len(pcam_table.NETWORKS) == 8
    monkeypatch.setattr(pcam_table, "NETWORKS", NETWORKS)
    result = invoke("--data", data, "--results", tmp_path)
    assert result.exit_code == 0, result.stderr
    (folder,) = tmp_path.glob("table-*")
    rows = json.loads((folder / "table.json").read_text())
    assert [row["model"] for row in rows] == ["MobileNetV2", "MobileNetV2 C4"]
    assert rows[1]["device"]["bit_identical"] is True
    assert rows[1]["parameters"] < rows[0]["parameters"]
    assert "| MobileNetV2 C4 |" in (folder / "table.md").read_text()
    assert "MobileNetV2 C4" in (folder / "report.html").read_text()
    trained = sorted(tmp_path.glob("pcam-*/*/last.ckpt"))
    assert len(trained) == 2

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("pcam-*/**/*")}
    again = invoke("--data", data, "--results", tmp_path)
    assert again.exit_code == 0, again.stderr
    assert again.stdout.count("is finished") == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("pcam-*/**/*")} == before
    assert json.loads((folder / "table.json").read_text()) == rows


def test_networks_that_can_not_be_are_refused_before_anything_is_trained(data, tmp_path):
    result = invoke("--data", data, "--results", tmp_path)  # C8 is wider
    assert result.exit_code == 1
    assert "at least 0.5, at which the narrowest layer is one block of 8 channels" in result.stderr
    assert list(tmp_path.iterdir()) == []
