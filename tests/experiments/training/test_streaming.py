"""Images stream from the disk at flat memory, however many there are.

The size of PCam itself, 7.2 GB under the folder for temporary files:

    EQ_AIMET_STREAMED_IMAGES=262144 pytest tests/experiments/training/test_streaming.py -s
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eq_aimet.experiments.data.hdf5_writer import new_hdf5
from eq_aimet.experiments.data.layout import IMAGE_SHAPE, LABEL_SHAPE, file_name
from eq_aimet.experiments.training import PatchDataModule

IMAGES = int(os.environ.get("EQ_AIMET_STREAMED_IMAGES", 4096))
BLOCK = 1024
WORKERS = 2
ALLOWED_GROWTH = 24_000_000  # of all processes together; the smallest set that is tried has 113 MB


def write_split(folder, split, count):
    """Writes random images, the same ones over and over."""
    generator = np.random.default_rng(0)
    block = generator.integers(0, 256, (min(BLOCK, count), *IMAGE_SHAPE), np.uint8)
    for key, shape in (("x", IMAGE_SHAPE), ("y", LABEL_SHAPE)):
        with new_hdf5(folder / file_name(split, key)) as (file, check):
            dataset = file.create_dataset(
                key, (count, *shape), np.uint8, chunks=(1 if key == "x" else count, *shape)
            )
            for start in range(0, count, len(block)):
                part = block[: count - start] if key == "x" else np.zeros((len(block), 1, 1, 1), np.uint8)
                dataset[start : start + len(block)] = part[: count - start]
                check()


def used_memory(processes):
    """Returns the bytes that the processes hold, shared ones once; the cache of files is not theirs."""
    total = 0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem")))
    return 1024 * total


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/<process>/smaps_rollup")
def test_memory_stays_flat_over_an_epoch(tmp_path):
    for split, count in (("train", IMAGES), ("valid", 4), ("test", 4)):
        write_split(tmp_path, split, count)
    size = (tmp_path / file_name("train", "x")).stat().st_size
    data = PatchDataModule(tmp_path, batch_size=64, crop=95, seed=0, workers=WORKERS)
    loader = data.train_dataloader()
    readings, seen, start = [], 0, time.perf_counter()
    batches = iter(loader)
    processes = [os.getpid(), *(worker.pid for worker in batches._workers)]
    assert len(processes) == 1 + WORKERS
    for number, (images, _) in enumerate(batches):
        seen += len(images)
        del images
        if number % (len(loader) // 16) == 0:
            readings.append(used_memory(processes))
    seconds = time.perf_counter() - start
    growth = max(readings[4:]) - readings[3]
    sys.stdout.write(
        f"\n{seen:,} images, {size / 1e9:.2f} GB, {seen / seconds:,.0f} images/s; "
        f"memory of {len(processes)} processes: {readings[3] / 1e6:.0f} MB, growth {growth / 1e6:.1f} MB\n"
    )
    assert seen == IMAGES
    assert size > 4 * ALLOWED_GROWTH
    assert growth < ALLOWED_GROWTH
