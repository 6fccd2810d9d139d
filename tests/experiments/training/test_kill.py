"""A training that is killed at any moment ends, once resumed, as one that was not."""

import os
import resource
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tiny_training import (
    TinyData,
    assert_equal,
    classifier,
    run_in_process,
    saved_result,
    train,
)

from eq_aimet.errors import DataError
from eq_aimet.experiments.training import best_weights, train_classifier

EPOCHS = 3


def train_and_save(folder, result):
    """Trains in a process of its own and saves weights and history."""
    torch.set_num_threads(1)
    # With wrong labels the first epoch is the best one, otherwise each one is better than those before.
    trained, history = train(folder, data=TinyData(noisy="noisy" in folder.name), epochs=EPOCHS)
    torch.save((trained.model.state_dict(), [asdict(record) for record in history]), result)


def kill_in_step(folder, hook, epoch, batch):
    """Trains until a moment within an epoch."""
    torch.set_num_threads(1)
    killed = classifier()
    step = getattr(killed, hook)

    def killing_step(data, batch_idx):
        if (killed.current_epoch, batch_idx) == (epoch, batch):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(data, batch_idx)

    setattr(killed, hook, killing_step)
    data = TinyData(noisy="noisy" in folder.name)
    train_classifier(killed, data, folder, epochs=EPOCHS, progress=False)


def kill_at_file_operation(folder, number):
    """Trains until just before the operation of this number on the files of the folder, in two epochs."""
    torch.set_num_threads(1)
    seen = 0
    finished = []

    def audit(event, arguments):
        nonlocal seen
        if (
            len(finished) < 2
            and event in ("open", "os.rename", "os.remove")
            and str(folder) in str(arguments[0])
        ):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    train(folder, data=TinyData(noisy="noisy" in folder.name), epochs=EPOCHS, on_epoch=finished.append)


def kill_amid_writing(folder, epoch):
    """Trains until a checkpoint is half written, where the kernel ends the process."""
    torch.set_num_threads(1)

    def limit(record):
        if record.epoch == epoch:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            half = (folder / "last.ckpt").stat().st_size // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (half, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    train(folder, data=TinyData(noisy="noisy" in folder.name), epochs=EPOCHS, on_epoch=limit)


@pytest.fixture(scope="module", params=["improving", "noisy"])
def whole(request, tmp_path_factory):
    """The folder and the result of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / request.param
    result = folder.with_suffix(".result")
    assert run_in_process(train_and_save, folder, result) == 0
    return folder, result


def assert_resumes_to(whole, folder):
    """Resumes the training in the folder, and raises unless it ends as the whole one, bit for bit."""
    whole_folder, whole_result = whole
    result = folder.with_suffix(".result")
    assert run_in_process(train_and_save, folder, result) == 0
    weights, history = saved_result(result)
    whole_weights, whole_history = saved_result(whole_result)
    assert_equal(whole_weights, weights)
    assert history == whole_history
    assert len(history) == EPOCHS
    assert_equal(best_weights(whole_folder), best_weights(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize(
    ("hook", "epoch", "batch"),
    [("training_step", 0, 1), ("training_step", 1, 0), ("training_step", 2, 3), ("validation_step", 1, 1)],
)
def test_killed_within_an_epoch(whole, tmp_path, hook, epoch, batch):
    folder = tmp_path / whole[0].name
    assert run_in_process(kill_in_step, folder, hook, epoch, batch) == -signal.SIGKILL
    assert_resumes_to(whole, folder)


def test_killed_between_any_two_file_operations(whole, tmp_path):
    operations = 0
    while True:
        folder = tmp_path / str(operations) / whole[0].name
        code = run_in_process(kill_at_file_operation, folder, operations + 1)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert_resumes_to(whole, folder)
        operations += 1
    # Each last checkpoint is opened, renamed and looked after once more, and the second makes the first the
    # previous one; at least one best checkpoint is written too.
    assert operations >= 3 + 3 + 1 + 3


@pytest.mark.parametrize("epoch", [1, 2])
def test_killed_while_a_checkpoint_is_written(whole, tmp_path, epoch):
    folder = tmp_path / whole[0].name
    assert run_in_process(kill_amid_writing, folder, epoch) == -signal.SIGXFSZ
    (partial,) = folder.glob(".*.partial/last.ckpt")
    assert 0 < partial.stat().st_size < (folder / "last.ckpt").stat().st_size
    assert_resumes_to(whole, folder)


def fill_disk(folder, epoch, message):
    """Trains until no file can grow any more, which is an error like that of a full disk."""
    torch.set_num_threads(1)
    before = {}

    def limit(record):
        if record.epoch == epoch:
            before.update({path: path.read_bytes() for path in folder.iterdir()})
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))

    try:
        train(folder, data=TinyData(noisy="noisy" in folder.name), epochs=EPOCHS, on_epoch=limit)
    except DataError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(message).write_text(str(error))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_leaves_the_older_checkpoints_whole(whole, tmp_path):
    folder, message = tmp_path / whole[0].name, tmp_path / "message"
    assert run_in_process(fill_disk, folder, 2, message) == 0
    assert "an error on writing ([Errno 27] File too large)" in message.read_text()
    assert "no half-written file is left behind" in message.read_text()
    assert_resumes_to(whole, folder)
