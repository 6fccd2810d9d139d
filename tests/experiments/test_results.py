import errno
import json
from pathlib import Path

import pytest

from eq_aimet.errors import DataError
from eq_aimet.experiments import ResultsFolder
from eq_aimet.experiments.training import is_first_process


def full_disk(path, content):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_new_folder_holds_its_configuration(tmp_path):
    folder = ResultsFolder.open(tmp_path / "a" / "b", {"seed": 3, "sizes": (1, 2)})
    assert json.loads((folder.path / "config.json").read_text()) == {"seed": 3, "sizes": [1, 2]}


def test_the_same_configuration_needs_resume(tmp_path):
    ResultsFolder.open(tmp_path, {"seed": 3, "sizes": (1, 2)}).write_text("table.md", "x")
    with pytest.raises(
        DataError, match=r"results of an earlier run of this configuration.*Add `resume=True`"
    ):
        ResultsFolder.open(tmp_path, {"seed": 3, "sizes": (1, 2)})
    again = ResultsFolder.open(tmp_path, {"seed": 3, "sizes": (1, 2)}, resume=True)
    assert (again.path / "table.md").read_text() == "x"


@pytest.mark.parametrize("resume", [False, True])
def test_another_configuration_is_never_overwritten(tmp_path, resume):
    ResultsFolder.open(tmp_path, {"seed": 3, "width": 0.5})
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(DataError, match=r"another configuration \(seed 3 instead of 4\).*`path`"):
        ResultsFolder.open(tmp_path, {"seed": 4, "width": 0.5}, resume=resume)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_foreign_folder_is_left_alone(tmp_path, content):
    (tmp_path / "thesis.txt").write_text("mine")
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match="Nothing in the folder was changed"):
        ResultsFolder.open(tmp_path, {"seed": 3}, resume=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(DataError, match="received a file; expected a folder for the results"):
        ResultsFolder.open(tmp_path / "run", {})
    with pytest.raises(DataError, match="can't be made"):
        ResultsFolder.open(tmp_path / "run" / "below", {})


def test_a_full_disk_leaves_the_older_file_whole(tmp_path, monkeypatch):
    folder = ResultsFolder.open(tmp_path, {})
    folder.write_text("table.md", "older")
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(DataError, match="no space left on the device"):
        folder.write_text("table.md", "newer and longer")
    with pytest.raises(DataError, match="no space left on the device"):
        folder.write_json("table.json", [1, 2, 3])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "table.md"]
    assert (tmp_path / "table.md").read_text() == "older"


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    folder = ResultsFolder.open(tmp_path, {})
    folder.write_json("report.json", {"ratio": float("inf"), "deep": [{"error": float("nan")}, (1.5, True)]})
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "ratio": None,
        "deep": [{"error": None}, [1.5, True]],
    }


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_only_the_first_process_makes_the_folder(tmp_path, monkeypatch, environment, first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() == first
    folder = ResultsFolder.open(tmp_path / "run", {"seed": 0})
    assert folder.subfolder("model").path == tmp_path / "run" / "model"
    assert (tmp_path / "run").exists() == first
