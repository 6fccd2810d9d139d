"""Hundreds of hostile files and settings: each ends in an error of eq_aimet's, or works; no file changes."""

from __future__ import annotations

import io
import json
import random
import zipfile

import h5py
import numpy as np
import pytest
import torch

from eq_aimet.errors import EqAimetError
from eq_aimet.experiments import ResultsFolder, Settings, TableRow
from eq_aimet.experiments.data import PCamDataset, RotatedMnist, write_synthetic_pcam
from eq_aimet.experiments.data.layout import file_name
from eq_aimet.experiments.training import best_weights
from eq_aimet.experiments.training.checkpoints import write_checkpoint

X, Y = file_name("train", "x"), file_name("train", "y")


def damage(content, draw):
    """Flips bits, writes noise, cuts, or puts another part in."""
    content = bytearray(content)
    kind = draw.choice(["bits", "noise", "cut", "copy", "zeros", "ones"])
    place = draw.randrange(len(content))
    length = draw.choice([1, 2, 4, 8, 64, 512])
    if kind == "cut":
        return bytes(content[:place])
    if kind == "bits":
        for _ in range(draw.choice([1, 3, 20])):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    else:
        other = draw.randrange(len(content))
        part = {
            "noise": draw.randbytes(length),
            "copy": content[other : other + length],
            "zeros": bytes(length),
            "ones": b"\xff" * length,
        }[kind]
        content[place : place + length] = part
    return bytes(content)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ends_well(action, folder):
    """Whether the action worked; an error of another kind, or a changed file, fails the test."""
    before, message = contents(folder), None
    try:
        action()
    except EqAimetError as error:
        message = str(error)
    assert message is None or "expected" in message
    assert contents(folder) == before
    return message is None


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    images[:, :, 10:] = 0  # small files, in which the structure is hit often
    with h5py.File(folder / X, "w") as file:
        file.create_dataset("x", data=images, chunks=(1, 96, 96, 3), compression="gzip", shuffle=True)
    with h5py.File(folder / Y, "w") as file:
        file["y"] = np.array([0, 1], np.uint8).reshape(-1, 1, 1, 1)
    return contents(folder)


@pytest.mark.parametrize("name", [X, Y])
def test_damaged_hdf5(split, tmp_path, name):
    draw = random.Random(name)
    outcomes = []
    for _ in range(100):
        for path, content in split.items():
            (tmp_path / path).write_bytes(damage(content, draw) if path.name == name else content)

        def read():
            with PCamDataset(tmp_path, "train") as dataset:
                for image, label in dataset:
                    assert image.shape == (3, 95, 95)
                    assert label in (0, 1)

        outcomes.append(ends_well(read, tmp_path))
    assert 10 < sum(outcomes) < 90


def test_damaged_numpy_archives(tmp_path):
    draw = random.Random(1)
    content = io.BytesIO()
    digits, labels = np.zeros((10_001, 28, 28), np.uint8), np.zeros(10_001, np.uint8)
    np.savez_compressed(content, x_train=digits, y_train=labels, x_test=digits[:5], y_test=labels[:5])
    outcomes = []
    for _ in range(60):
        (tmp_path / "mnist.npz").write_bytes(damage(content.getvalue(), draw))
        outcomes.append(ends_well(lambda: RotatedMnist(tmp_path / "mnist.npz", "test")[0], tmp_path))
    assert 5 < sum(outcomes) < 55


def test_forged_numpy_headers(tmp_path):
    path = tmp_path / "mnist.npz"
    for descr in ("|u1", "<f8", "|O", "<U9999999", "|V1000000000", "x", [("a", "|u1")], "<M8[s]", "|u1, |u1"):
        for shape in (
            (5, 28, 28),
            (10**12, 28, 28),
            (5,),
            (),
            (-5, 28, 28),
            (5, 28, "28"),
            (2**70,),
            (5.0, 28, 28),
        ):
            header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}\n".encode()
            with zipfile.ZipFile(path, "w") as archive:
                magic = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
                archive.writestr("x_test.npy", magic + header + bytes(5 * 28 * 28))
            assert not ends_well(lambda: RotatedMnist(path, "test"), tmp_path)


def any_value(draw, depth=0):
    kinds = ["tensor", "number", "text", "none", "nan", "large", "bool", "list", "dict"]
    kind = draw.choice(kinds[: 7 if depth > 2 else 9])
    return {
        "tensor": lambda: torch.zeros(draw.randrange(4), draw.randrange(4)),
        "number": lambda: draw.randrange(-3, 3),
        "text": lambda: draw.choice(["", "model.0.weight", "x" * 1000, "\udcff"]),
        "none": lambda: None,
        "nan": lambda: float("nan"),
        "large": lambda: draw.choice([10**30, -(10**18), 1e300]),
        "bool": lambda: True,
        "list": lambda: [any_value(draw, depth + 1) for _ in range(draw.randrange(4))],
        "dict": lambda: {str(index): any_value(draw, depth + 1) for index in range(draw.randrange(4))},
    }[kind]()


def test_hostile_checkpoints(tmp_path):
    draw = random.Random(2)
    path = tmp_path / "best.ckpt"
    whole = {"state_dict": {"model.0.weight": torch.rand(3, 3)}, "epoch": 1, "valid_loss": 0.5}
    write_checkpoint(whole, path)
    content = path.read_bytes()
    outcomes = []
    for round in range(150):
        if round % 2:
            path.write_bytes(damage(content, draw))
        else:
            changed = {**whole, draw.choice([*whole, "more"]): any_value(draw)}
            torch.save(changed, path)
        outcomes.append(ends_well(lambda: best_weights(tmp_path), tmp_path))
    assert not any(outcomes[::2])
    assert sum(outcomes) < 60


SETTINGS = Settings(8, 8, 8).to_dict()


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings(name, tmp_path):
    draw = random.Random(name)
    values = [
        *(any_value(draw) for _ in range(12)),
        [],
        {},
        b"x",
        0,
        -1,
        2.5,
        "1e9",
        1e9,
        "\0",
        float("inf"),
        object(),
    ]
    for value in values:

        def make(value=value):
            settings = Settings(**{**SETTINGS, name: value})
            json.dumps(settings.to_dict())
            assert len(settings.run_name.encode(errors="replace")) < 2000

        ends_well(make, tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", '"x"', "[" * 100_000, "\0", '{"seed": 1e999}', "{}" * 3]
)
def test_hostile_configurations(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert not ends_well(lambda: ResultsFolder.open(tmp_path, {"seed": 0}, resume=True), tmp_path)


def test_hostile_rows(tmp_path):
    draw = random.Random(3)
    for _ in range(60):
        values = any_value(draw)
        assert not ends_well(lambda values=values: TableRow.from_dict(values), tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        {"crop": 47.5},
        {"crop": "47"},
        {"crop": True},
        {"crop": None},
        {"limit": 2.5},
        {"limit": "2"},
        {"limit": -1},
    ]
    + [{"split": value} for value in (None, ["train"], 3, "")]
    + [{"folder": value} for value in (None, 3, "", "a\0b", b"x")]
    + [{"transform": 3}, {"progress": "no"}, {"cache_dir": 3}],
    ids=str,
)
def test_hostile_arguments_of_the_data_set(split, tmp_path, arguments):
    for path, content in split.items():
        (tmp_path / path).write_bytes(content)
    assert not ends_well(lambda: PCamDataset(**{"folder": tmp_path, "split": "train", **arguments}), tmp_path)


def test_the_generator_refuses_other_numbers_too(tmp_path):
    for arguments in ({"train": 2.5}, {"valid": "3"}, {"test": None}, {"seed": 0.5}, {"train": 10**12}):
        assert not ends_well(
            lambda arguments=arguments: write_synthetic_pcam(tmp_path, **arguments), tmp_path
        )
