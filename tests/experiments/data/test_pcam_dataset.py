from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eq_aimet.errors import DataError
from eq_aimet.experiments.data import PCamDataset, turn_and_flip
from eq_aimet.experiments.data.layout import file_name


def test_a_sample_is_the_files_pixels_without_the_last_row_and_column(folder, images, labels):
    with PCamDataset(folder, "train") as dataset:
        image, label = dataset[2]
    assert image.shape == (3, 95, 95)
    assert image.dtype == torch.float32
    assert label.dtype == torch.int64
    assert label.shape == ()
    assert int(label) == labels[2, 0, 0, 0]
    expected = torch.from_numpy(images[2, :95, :95]).permute(2, 0, 1).double() / 255
    torch.testing.assert_close(image.double(), expected, rtol=0, atol=1e-7)


def test_a_smaller_crop_is_about_the_middle(folder, images):
    with PCamDataset(folder, "train", crop=65) as dataset:
        image, _ = dataset[0]
    assert torch.equal(
        (image * 255).round().byte(), torch.from_numpy(images[0, 15:80, 15:80]).permute(2, 0, 1)
    )


def test_limit_keeps_the_first_samples(folder, labels):
    with PCamDataset(folder, "train", limit=4) as dataset:
        assert len(dataset) == 4
        assert dataset.labels.tolist() == labels.ravel()[:4].tolist()
        assert dataset.labels.dtype == torch.int64
        assert len(list(dataset)) == 4
    assert len(PCamDataset(folder, "train", limit=100)) == 6


def test_indices_follow_the_sequence_protocol(folder):
    with PCamDataset(folder, "train") as dataset:
        assert torch.equal(dataset[-1][0], dataset[5][0])
        with pytest.raises(IndexError, match="received 6; expected -6 <= index < 6"):
            dataset[6]
        with pytest.raises(IndexError, match="received -7"):
            dataset[-7]


def test_the_transform_is_applied_to_the_image_alone(folder):
    with PCamDataset(folder, "train", transform=lambda image: -image) as dataset:
        image, label = dataset[1]
    assert image.max() <= 0
    assert int(label) == 1


def test_no_file_is_open_before_the_first_image_or_after_closing(folder):
    dataset = PCamDataset(folder, "train")
    assert dataset._handle is None
    first = dataset[0][0]
    assert dataset._handle is not None
    dataset.close()
    assert dataset._handle is None
    assert torch.equal(dataset[0][0], first)
    dataset.close()


def test_memory_does_not_grow_with_the_split(tmp_path: Path) -> None:
    count = 40_000  # 1.1 GB of images, none of which is ever written to the sparse file
    with h5py.File(tmp_path / file_name("test", "x"), "w") as file:
        file.create_dataset("x", (count, 96, 96, 3), np.uint8, chunks=(1, 96, 96, 3))
    with h5py.File(tmp_path / file_name("test", "y"), "w") as file:
        file["y"] = np.zeros((count, 1, 1, 1), np.uint8)
    tracemalloc.start()
    try:
        with PCamDataset(tmp_path, "test") as dataset:
            for index in range(0, count, 400):
                dataset[index]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6


def test_a_pickle_carries_no_open_file(folder):
    with PCamDataset(folder, "train", transform=turn_and_flip) as dataset:
        dataset[0]
        copy = pickle.loads(pickle.dumps(dataset))
    assert copy._handle is None
    with copy:
        assert int(copy[1][1]) == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_workers_read_what_the_parent_reads(folder, context: str) -> None:
    if context == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    with PCamDataset(folder, "train") as dataset:
        expected = torch.stack([image for image, _ in dataset])  # the parent's file is open from here on
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=context)
        batches = list(loader)
    assert torch.equal(torch.cat([image for image, _ in batches]), expected)
    assert torch.cat([label for _, label in batches]).tolist() == dataset.labels.tolist()


def test_another_process_opens_the_file_for_itself(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with PCamDataset(folder, "train") as dataset:
        dataset[0]
        inherited = dataset._handle
        process = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        dataset[0]
        assert dataset._handle is not inherited
        inherited.close()


def test_a_damaged_image_is_named(folder, images, write_hdf5: Callable[..., Path]) -> None:
    path = folder / file_name("train", "x")
    path.unlink()
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=images, chunks=(1, 96, 96, 3), compression="gzip")
        chunk = file["x"].id.get_chunk_info(3)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + 100)
        file.write(bytes(64))
    with PCamDataset(folder, "train") as dataset:
        dataset[2]
        with pytest.raises(DataError, match=r"train_x\.h5`: received damaged data in `/x` from index 3 on"):
            dataset[3]


def test_real_patches_are_read_unchanged(real_folder: Path) -> None:
    for split, count in (("train", 1476), ("valid", 400), ("test", 364)):
        with PCamDataset(real_folder, split) as dataset:
            assert len(dataset) == count
            assert dataset.labels.double().mean() == 0.5
            image, label = dataset[count - 1]
        with (
            h5py.File(real_folder / file_name(split, "x")) as x,
            h5py.File(real_folder / file_name(split, "y")) as y,
        ):
            pixels = torch.from_numpy(x["x"][-1, :95, :95]).permute(2, 0, 1)
            assert torch.equal((image * 255).round().byte(), pixels)
            assert int(label) == y["y"][-1, 0, 0, 0]
