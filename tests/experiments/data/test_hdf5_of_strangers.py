"""HDF5 files that try to read other files, to fill the memory, or to go on for ever."""

from __future__ import annotations

import os
import zlib

import h5py
import numpy as np
import pytest

from eq_aimet.errors import DataError
from eq_aimet.experiments.data import PCamDataset, hdf5_reader, write_synthetic_pcam
from eq_aimet.experiments.data.layout import file_name

X, Y = file_name("train", "x"), file_name("train", "y")
SHAPE = (6, 96, 96, 3)


@pytest.fixture
def secret(tmp_path):
    """A file of the user's, with the very bytes and the very data set that the split has."""
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.full(SHAPE, 7, np.uint8)
    return path


def external_storage(file, secret):
    file.create_dataset("x", SHAPE, np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def external_link(file, secret):
    file["x"] = h5py.ExternalLink(str(secret), "/x")


def soft_link_to_an_external_link(file, secret):
    file["other"] = h5py.ExternalLink(str(secret), "/x")
    file["x"] = h5py.SoftLink("/other")


def virtual_data_set(file, secret):
    layout = h5py.VirtualLayout(SHAPE, np.uint8)
    layout[:] = h5py.VirtualSource(str(secret), "x", SHAPE)
    file.create_virtual_dataset("x", layout)


def link_to_itself(file, secret):
    file["x"] = h5py.SoftLink("/x")


def link_in_a_circle(file, secret):
    file["other"] = h5py.SoftLink("/x")
    file["x"] = h5py.SoftLink("/other")


def link_to_the_top(file, secret):
    file["x"] = file["/"]


def compound(file, secret):
    file.create_dataset("x", SHAPE, np.dtype([("a", np.uint8)]))


def variable_length(file, secret):
    file.create_dataset("x", SHAPE, h5py.vlen_dtype(np.uint8))


def references(file, secret):
    file.create_dataset("x", SHAPE, h5py.ref_dtype)


def nothing(file, secret):
    file["x"] = h5py.Empty(np.uint8)


def a_single_number(file, secret):
    file["x"] = np.uint8(3)


def a_named_type(file, secret):
    file["x"] = np.dtype(np.uint8)


def two_compressions(file, secret):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1, *SHAPE[1:]))
    plan.set_deflate(1)
    plan.set_deflate(1)
    space = h5py.h5s.create_simple(SHAPE)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, plan)


def huge_chunks(file, secret):
    file.create_dataset(
        "x", (6, *SHAPE[1:]), np.uint8, chunks=(20_000, *SHAPE[1:]), maxshape=(None, *SHAPE[1:])
    )


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (external_storage, "'x' with its values in other files (external storage)"),
        (external_link, "'x' as a link to another place or another file"),
        (soft_link_to_an_external_link, "'x' as a link to another place or another file"),
        (virtual_data_set, "'x' with its values in other data sets (a virtual data set)"),
        (link_to_itself, "'x' as a link"),
        (link_in_a_circle, "'x' as a link"),
        (link_to_the_top, "the keys ['x']; expected a data set 'x'"),
        (compound, "'x' of shape"),
        (variable_length, "'x' of shape (6, 96, 96, 3) and dtype object"),
        (references, "'x' of shape (6, 96, 96, 3) and dtype object"),
        (nothing, "'x' of shape None"),
        (a_single_number, "'x' of shape ()"),
        (a_named_type, "the keys ['x']; expected a data set 'x'"),
        (two_compressions, "'x' with the filters deflate, deflate"),
        (huge_chunks, "'x' in chunks of 552,960,000 bytes"),
    ],
)
def test_only_plain_values_in_the_file_itself_are_read(folder, secret, make, received):
    (folder / X).unlink()
    with h5py.File(folder / X, "w") as file:
        make(file, secret)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError) as caught:
        PCamDataset(folder, "train")[0]
    assert f"`{folder / X}`: received {received}" in str(caught.value)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_image_file_that_is_exchanged_later_is_checked_again(folder, secret):
    dataset = PCamDataset(folder, "train")
    (folder / X).unlink()
    with h5py.File(folder / X, "w") as file:
        external_link(file, secret)
    with pytest.raises(DataError, match="as a link to another place"):
        dataset[0]


@pytest.mark.parametrize(
    ("count", "received"), [(10**13, "of 10,000,000,000,000 samples"), (10**8, "100,000,000 bytes")]
)
def test_labels_that_the_file_can_not_hold_are_not_allocated(folder, count, received):
    (folder / Y).unlink()
    with h5py.File(folder / Y, "w") as file:
        file.create_dataset("y", (count, 1, 1, 1), np.uint8, chunks=(10**6, 1, 1, 1))
    with pytest.raises(DataError) as caught:
        PCamDataset(folder, "train")
    assert received in str(caught.value)


def test_a_chunk_that_holds_more_than_it_stands_for_is_refused(folder, images):
    bomb = zlib.compress(bytes(80 << 20), 9)  # 80 MB in 80 KB
    assert len(bomb) < 96 * 96 * 96 * 3
    (folder / X).unlink()
    with h5py.File(folder / X, "w") as file:
        dataset = file.create_dataset("x", SHAPE, np.uint8, chunks=(6, *SHAPE[1:]), compression="gzip")
        dataset.id.write_direct_chunk((0, 0, 0, 0), bomb)
    with (
        PCamDataset(folder, "train") as dataset,
        pytest.raises(DataError, match="holds more than its 165,888 bytes"),
    ):
        dataset[0]


def test_a_chunk_that_is_large_and_honest_is_read(folder, images, monkeypatch):
    monkeypatch.setattr(hdf5_reader, "_UNSUSPICIOUS", 1)
    (folder / X).unlink()
    with h5py.File(folder / X, "w") as file:
        file.create_dataset(
            "x", data=images, chunks=(4, 50, 96, 2), compression="gzip", shuffle=True, fletcher32=True
        )
    with PCamDataset(folder, "train") as dataset:
        for index, expected in enumerate(images):
            image = (dataset[index][0] * 255).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(image, expected[:95, :95])


@pytest.mark.parametrize(
    "value", [np.arange(100), {"nested": 1}, b"\xff\xfe", 3.5, h5py.Empty("i4")], ids=str
)
def test_attributes_of_strangers_are_one_clear_error(tmp_path, value):
    with h5py.File(tmp_path / X, "w") as file:
        file.attrs["generator"] = str(value) if isinstance(value, dict) else value
    with pytest.raises(DataError, match="received data that this function has not written"):
        write_synthetic_pcam(tmp_path, train=2, valid=2, test=2, progress=False)


def test_a_pipe_does_not_hang(folder):
    (folder / X).unlink()
    os.mkfifo(folder / X)
    with pytest.raises(DataError, match="no file with the images of the split 'train'"):
        PCamDataset(folder, "train")


def test_packed_archives_are_named(folder):
    (folder / X).unlink()
    (folder / "train.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"`train\.npz` is a packed archive, .*Unpack it to HDF5 files first"):
        PCamDataset(folder, "train")
