from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, check_split
from eq_aimet.experiments.data.layout import file_name

X, Y = file_name("train", "x"), file_name("train", "y")


def expect(folder: Path, *parts: str, **arguments: object) -> None:
    """Checks that opening the split fails with all these parts in the error's text, in this order."""
    with pytest.raises(DataError) as caught:
        PCamDataset(folder, "train", **arguments)
    assert re.search(".*".join(map(re.escape, parts)), str(caught.value)), str(caught.value)


def test_a_good_split_passes(folder):
    files = check_split(folder, "train")
    assert (files.split, files.images, files.labels, files.count) == ("train", folder / X, folder / Y, 6)


def test_missing_folder(tmp_path):
    expect(tmp_path / "nowhere", "nowhere`: received no such folder; expected", "write_synthetic_pcam")


def test_file_for_folder(folder):
    expect(folder / X, f"{X}`: received a file; expected the folder")


@pytest.mark.parametrize(("name", "what"), [(X, "images"), (Y, "labels")])
def test_missing_file(folder, name, what):
    (folder / name).unlink()
    expect(
        folder,
        f"no file with the {what} of the split 'train'",
        f"`{name}` or `{name}.gz`",
        "github.com/basveeling/pcam",
    )


@pytest.mark.parametrize(
    ("content", "received", "remedy"),
    [
        (b"", "an empty file", "Download it again"),
        (b"<!DOCTYPE html>", "a file that starts with b'<!DOCTYP'", "Download it again"),
        (b"\x1f\x8b\x08\x00abcdef", "a file that starts with b'\\x1f\\x8b", f"rename it to `{X}.gz`"),
    ],
)
def test_no_hdf5(folder, content, received, remedy):
    (folder / X).write_bytes(content)
    expect(folder, f"{X}`: received {received}", "expected an HDF5 file", remedy)


def test_truncated_hdf5(folder):
    content = (folder / X).read_bytes()
    (folder / X).write_bytes(content[: len(content) // 2])
    expect(folder, f"{X}`: received a truncated or damaged HDF5 file (", "Download it again")


def test_swapped_files(folder):
    (folder / X).rename(folder / "other")
    (folder / Y).rename(folder / X)
    (folder / "other").rename(folder / Y)
    expect(folder, f"{X}`: received the keys ['y']", "expected a data set 'x'", "hold the labels", "swapped")


def test_missing_key(folder, labels, write_hdf5):
    write_hdf5(folder / Y, label=labels)
    expect(folder, f"{Y}`: received the keys ['label']; expected a data set 'y' with the labels")


def test_group_for_data_set(folder, labels, write_hdf5):
    write_hdf5(folder / Y, **{"y/inner": labels})
    expect(folder, f"{Y}`: received the keys ['y']; expected a data set 'y'")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((6, 3, 96, 96), np.uint8),
        ((6, 64, 64, 3), np.uint8),
        ((6, 27648), np.uint8),
        ((6, 96, 96, 3), np.float32),
    ],
)
def test_wrong_images(folder, write_hdf5, shape, dtype):
    write_hdf5(folder / X, x=np.zeros(shape, dtype))
    expect(
        folder,
        f"{X}`: received 'x' of shape {shape} and dtype {np.dtype(dtype)}",
        "expected shape (n, 96, 96, 3) and dtype uint8",
    )


def test_wrong_labels_shape(folder, write_hdf5):
    write_hdf5(folder / Y, y=np.zeros(6, np.uint8))
    expect(folder, f"{Y}`: received 'y' of shape (6,)", "expected shape (n, 1, 1, 1)")


def test_different_lengths(folder, labels, write_hdf5):
    write_hdf5(folder / Y, y=labels[:4])
    expect(folder, f"{Y}`: received 4 labels; expected 6 labels", X)


def test_labels_that_are_not_binary(folder, labels, write_hdf5):
    labels[3] = 2
    write_hdf5(folder / Y, y=labels)
    expect(folder, f"{Y}`: received the labels 0, 1, 2; expected labels 0 and 1 only")


def test_empty_split(folder, images, labels, write_hdf5):
    write_hdf5(folder / X, x=images[:0])
    write_hdf5(folder / Y, y=labels[:0])
    expect(folder, f"{X}`: received 'x' without a sample; expected at least one sample")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"split": "validation"},
            "`split`: received 'validation'; expected one of 'train', 'valid', 'test'.",
        ),
        (
            {"crop": 96},
            "`crop`: received 96; expected an odd number from 33 to 95. Take 95: a 3x3 convolution",
        ),
        (
            {"crop": 64},
            "`crop`: received 64; expected an odd number from 33 to 95. Take 63: a 3x3 convolution",
        ),
        ({"crop": 97}, "`crop`: received 97; expected an odd number from 33 to 95."),
        ({"crop": 31}, "`crop`: received 31; expected an odd number from 33 to 95."),
        ({"crop": 32}, "`crop`: received 32; expected an odd number from 33 to 95."),
        ({"limit": 0}, "`limit`: received 0; expected an integer of at least 1."),
    ],
)
def test_impossible_arguments(folder, arguments, text):
    with pytest.raises(InvalidArgumentError, match=re.escape(text)):
        PCamDataset(folder, **{"split": "train", **arguments})


@pytest.mark.parametrize("crop", [33, 95])
def test_the_extreme_crops_are_possible(folder, crop):
    with PCamDataset(folder, "train", crop=crop) as dataset:
        assert dataset[0][0].shape == (3, crop, crop)


def test_errors_need_no_images_to_be_read(folder, labels, write_hdf5: Callable[..., Path]) -> None:
    # A split whose images are all damaged still opens: only its structure is checked.
    with open(folder / X, "r+b") as file:
        file.seek(-1000, 2)
        file.write(bytes(1000))
    assert check_split(folder, "train").count == 6
