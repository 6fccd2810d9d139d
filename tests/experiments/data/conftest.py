"""Files in PCam's layout to test with, and the place of the real ones."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from file_server import Server

from eq_aimet.experiments.data.layout import file_name

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def real_folder() -> Path:
    root = Path(os.environ.get("EQ_AIMET_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = root / "nuclei_in_pcam_layout"
    if not folder.is_dir():
        pytest.skip(
            f"no real data at {folder}: set EQ_AIMET_DATA to the folder that holds nuclei_in_pcam_layout"
        )
    return folder


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(6, 96, 96, 3), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([0, 1, 1, 0, 1, 0], np.uint8).reshape(-1, 1, 1, 1)


@pytest.fixture
def write_hdf5() -> Callable[..., Path]:
    def write(path: Path, **datasets: Any) -> Path:
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file[key] = values
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, images: np.ndarray, labels: np.ndarray, write_hdf5: Callable[..., Path]) -> Path:
    """A folder with a train split of six random images."""
    folder = tmp_path / "pcam"
    folder.mkdir()
    write_hdf5(folder / file_name("train", "x"), x=images)
    write_hdf5(folder / file_name("train", "y"), y=labels)
    return folder


@pytest.fixture
def fill_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, int], None]:
    """Makes the files that a module opens for writing run out of space after a number of bytes."""

    def fill(module: Any, capacity: int) -> None:
        class SmallDisk(io.FileIO):
            def write(self, block: Any) -> int:
                size = memoryview(block).nbytes
                if self.tell() + size > capacity:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(block)

        def open_on_small_disk(path: Path, mode: str = "r", **options: Any) -> Any:
            if "x" in mode:
                return SmallDisk(path, mode.replace("b", ""))
            return open(path, mode, **options)

        monkeypatch.setattr(module, "open", open_on_small_disk, raising=False)

    return fill


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as served:
        thread = threading.Thread(target=partial(served.serve_forever, poll_interval=0.01))
        thread.start()
        yield served
        served.shutdown()
        thread.join()
