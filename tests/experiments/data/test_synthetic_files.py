from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from eq_aimet import files
from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data import (
    PCamDataset,
    hdf5_writer,
    synthetic,
    synthetic_patch,
    write_synthetic_pcam,
)
from eq_aimet.experiments.data.layout import SPLITS, file_name

NAMES = sorted(file_name(split, key) for split in SPLITS for key in "xy")


def write(folder: Path, **arguments: Any) -> Path:
    return write_synthetic_pcam(
        folder, **{"train": 5, "valid": 3, "test": 2, "seed": 7, "progress": False, **arguments}
    )


def read(folder: Path, split: str, key: str) -> np.ndarray:
    with h5py.File(folder / file_name(split, key)) as file:
        return file[key][:]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def states(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_the_files_have_pcams_layout(tmp_path):
    folder = tmp_path / "new" / "set"
    assert write(folder) == folder
    assert names(folder) == NAMES
    for split, count in zip(SPLITS, (5, 3, 2), strict=True):
        x, y = read(folder, split, "x"), read(folder, split, "y")
        assert (x.shape, x.dtype) == ((count, 96, 96, 3), np.uint8)
        assert (y.shape, y.dtype) == ((count, 1, 1, 1), np.uint8)
        with PCamDataset(folder, split) as dataset:
            assert len(dataset) == count


def test_the_files_hold_the_patches_in_order(tmp_path):
    write(tmp_path, train=70)  # more than one batch
    x, y = read(tmp_path, "train", "x"), read(tmp_path, "train", "y")
    for index in (0, 63, 64, 69):
        patch = synthetic_patch(7, 0, index)
        assert np.array_equal(x[index], patch.image)
        assert y[index, 0, 0, 0] == patch.label


def test_a_split_does_not_depend_on_the_others_sizes(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", train=9, valid=1)
    for key in "xy":
        assert np.array_equal(read(tmp_path / "a", "test", key), read(tmp_path / "b", "test", key))
        assert np.array_equal(read(tmp_path / "a", "train", key), read(tmp_path / "b", "train", key)[:5])


def test_splits_and_seeds_differ(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", seed=8)
    assert not np.array_equal(read(tmp_path / "a", "train", "x"), read(tmp_path / "b", "train", "x"))
    assert not np.array_equal(read(tmp_path / "a", "train", "x")[:2], read(tmp_path / "a", "test", "x"))


def test_a_complete_set_is_used_again(tmp_path, monkeypatch):
    write(tmp_path)
    before = states(tmp_path)
    monkeypatch.setattr(synthetic, "synthetic_patch", None)  # drawing would fail
    write(tmp_path)
    assert states(tmp_path) == before


def test_only_missing_splits_are_written(tmp_path):
    write(tmp_path)
    before = states(tmp_path)
    expected = read(tmp_path, "valid", "y")
    (tmp_path / file_name("valid", "y")).unlink()
    write(tmp_path)
    after = states(tmp_path)
    assert np.array_equal(read(tmp_path, "valid", "y"), expected)
    assert {name for name in NAMES if after[name] == before[name]} == {n for n in NAMES if "valid" not in n}


@pytest.mark.parametrize(
    ("change", "received"),
    [
        (
            {"seed": 8},
            "`: received a synthetic set of version 1, seed 7, count 5; expected no such file, "
            "or a synthetic set of version 1, seed 8, count 5. Existing data is never overwritten",
        ),
        ({"test": 4}, "test_x.h5`: received a synthetic set of version 1, seed 7, count 2; expected"),
    ],
)
def test_another_synthetic_set_is_kept(tmp_path, change, received):
    write(tmp_path)
    before = states(tmp_path)
    with pytest.raises(DataError, match=re.escape(received)):
        write(tmp_path, **change)
    assert states(tmp_path) == before


@pytest.mark.parametrize("name", [file_name("train", "x"), file_name("test", "y")])
def test_other_data_is_kept(tmp_path, write_hdf5, name):
    write_hdf5(tmp_path / name, x=np.zeros(3))
    content = (tmp_path / name).read_bytes()
    with pytest.raises(
        DataError, match=rf"{name}`: received data that this function has not written; .* choose"
    ):
        write(tmp_path)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == content


def test_gzipped_data_is_not_hidden(tmp_path):
    name = f"{file_name('valid', 'x')}.gz"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{name}`: received a gzipped file; expected no such file"):
        write(tmp_path)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("capacity", [0, 3000, 60_000])
def test_a_full_disk_leaves_nothing(tmp_path, fill_disk, capacity):
    fill_disk(hdf5_writer, capacity)
    text = (
        f"`{tmp_path}`: received no space left on the device; expected room for the files to be written. Free"
    )
    with pytest.raises(DataError, match=re.escape(text)):
        write(tmp_path)
    assert names(tmp_path) == []


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(
            DataError, match=r"received an error on writing \(.*\); expected a folder that can"
        ):
            write(tmp_path, train=40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == []


def test_a_full_disk_is_noticed_before_all_is_drawn(tmp_path, fill_disk, monkeypatch):
    fill_disk(hdf5_writer, 60_000)
    drawn = []
    monkeypatch.setattr(synthetic, "synthetic_patch", lambda *key: drawn.append(key) or synthetic_patch(*key))
    with pytest.raises(DataError, match="no space left"):
        write(tmp_path, train=300)
    assert len(drawn) == 64


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def draw(seed: int, split: int, index: int) -> Any:
        if split == 2:
            raise KeyboardInterrupt
        return synthetic_patch(seed, split, index)

    monkeypatch.setattr(synthetic, "synthetic_patch", draw)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    assert names(tmp_path) == []


def test_a_failing_renaming_leaves_nothing(tmp_path, monkeypatch):
    replaced = []

    def replace(source: Path, target: Path) -> None:
        if len(replaced) == 3:
            raise PermissionError(13, "Permission denied")
        replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(DataError, match=r"received an error on writing \(.*Permission denied"):
        write(tmp_path)
    assert len(replaced) == 3
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"train": 0}, "`train`: received 0; expected an integer from 1 to 100000000."),
        ({"test": -1}, "`test`: received -1; expected an integer from 1 to 100000000."),
        ({"seed": -1}, "`seed`: received -1; expected an integer of at least 0."),
    ],
)
def test_impossible_arguments(tmp_path, arguments, text):
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        write(tmp_path / "set", **arguments)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="taken`: received a folder that can't be made"):
        write(tmp_path / "taken")


def test_the_progress_is_shown_if_wanted(tmp_path, capsys):
    write(tmp_path / "1", progress=True)
    assert "drawing patches" in capsys.readouterr().err
    write(tmp_path / "2")
    assert capsys.readouterr().err == ""
