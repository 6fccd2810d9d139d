"""Two processes, started as torchrun starts them, train one model."""

import os
import signal
import socket
from dataclasses import asdict

import pytest
import torch
from tiny_training import assert_equal, classifier, join_process, saved_result, start_process

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data import write_synthetic_pcam
from eq_aimet.experiments.training import PatchDataModule, best_weights, train_classifier

EPOCHS = 2


def environment(port, rank):
    """What torchrun tells its processes."""
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }


class RecordingModel(torch.nn.Module):
    """A small network that keeps the brightness of each image that it saw, in training and in evaluation."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.AvgPool2d(11), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(27, 2)
        )
        self.seen = {True: [], False: []}

    def forward(self, images):
        self.seen[self.training] += images.double().mean((1, 2, 3)).tolist()
        return self.layers(images)


def new_classifier():
    trained = classifier()
    trained.model = RecordingModel()
    return trained


def train_as_one_of_two(data_folder, folder, port, rank, trained_now):
    os.environ.update(environment(port, rank))
    torch.set_num_threads(1)
    trained = new_classifier()
    data = PatchDataModule(data_folder, batch_size=4, crop=33, seed=1)
    reported = []
    history = train_classifier(
        trained, data, folder, epochs=EPOCHS, devices=2, progress=False, on_epoch=reported.append
    )
    assert len(reported) == (0 if rank else trained_now)
    assert len(data.test_dataloader().dataset) == len(list(data.test_dataloader().sampler)) == 4
    seen = {"training": trained.model.seen[True], "evaluation": trained.model.seen[False]}
    saved = (trained.model.state_dict(), [asdict(record) for record in history])
    torch.save(saved, f"{folder}.{rank}.result")
    torch.save(seen, f"{folder}.{rank}.seen")


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    return write_synthetic_pcam(
        tmp_path_factory.mktemp("pcam"), train=19, valid=7, test=4, seed=1, progress=False
    )


@pytest.fixture(scope="module")
def trained_by_two(data_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "two"
    assert run_by_two(train_as_one_of_two, data_folder, folder, EPOCHS) == [0, 0]
    return folder


def run_by_two(target, data_folder, folder, *arguments):
    """Returns the exit codes of two processes of one training."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [start_process(target, data_folder, folder, port, rank, *arguments) for rank in (0, 1)]
    return [join_process(process) for process in processes]


def brightness(dataset):
    return sorted(round(float(image.double().mean()), 6) for image, _ in dataset)


def seen_by(folder, part):
    return [torch.load(f"{folder}.{rank}.seen")[part] for rank in (0, 1)]


def test_both_processes_end_with_the_same_weights_and_records(trained_by_two):
    (weights, history), (other_weights, other_history) = (
        saved_result(f"{trained_by_two}.{rank}.result") for rank in (0, 1)
    )
    learnt = {name: value for name, value in weights.items() if "running" not in name}
    assert_equal(learnt, {name: other_weights[name] for name in learnt})
    assert history == other_history
    assert [record["epoch"] for record in history] == [1, 2]
    assert all(torch.tensor(list(record.values())).isfinite().all() for record in history)
    assert sorted(path.name for path in trained_by_two.iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "previous.ckpt",
    ]
    assert best_weights(trained_by_two).keys() == weights.keys()


def test_no_training_image_is_read_twice_in_an_epoch(trained_by_two, data_folder):
    expected = brightness(PatchDataModule(data_folder, batch_size=4, crop=33).train)
    # 19 images: 9 for each process, in two full batches of 4.
    shares = seen_by(trained_by_two, "training")
    assert [len(share) for share in shares] == [16, 16]
    for epoch in range(EPOCHS):
        found = [round(value, 6) for share in shares for value in share[8 * epoch : 8 * epoch + 8]]
        assert len(set(found)) == 16
        assert set(found) <= set(expected)


def train_until_the_other_dies(data_folder, folder, port, rank):
    os.environ.update(environment(port, rank))
    torch.set_num_threads(1)
    trained = new_classifier()
    step = trained.training_step

    def dying_step(batch, batch_idx):
        if (rank, trained.current_epoch) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(batch, batch_idx)

    trained.training_step = dying_step
    data = PatchDataModule(data_folder, batch_size=4, crop=33, seed=1)
    with pytest.raises(
        InvalidArgumentError,
        match=r"`devices`: received several, and the connection to another process broke .* resumes there",
    ):
        train_classifier(trained, data, folder, epochs=EPOCHS, devices=2, progress=False)


def test_a_process_that_is_killed_is_said_and_resumed_from(trained_by_two, data_folder, tmp_path):
    folder = tmp_path / "two"
    assert run_by_two(train_until_the_other_dies, data_folder, folder) == [0, -signal.SIGKILL]
    assert [path.name for path in sorted(folder.iterdir())] == ["best.ckpt", "last.ckpt"]
    assert run_by_two(train_as_one_of_two, data_folder, folder, 1) == [0, 0]
    (weights, history), (whole_weights, whole_history) = (
        saved_result(f"{run}.0.result") for run in (folder, trained_by_two)
    )
    assert_equal(weights, whole_weights)
    assert history == whole_history


def test_each_validation_image_counts_once(trained_by_two, data_folder):
    expected = brightness(PatchDataModule(data_folder, batch_size=4, crop=33).valid)
    shares = seen_by(trained_by_two, "evaluation")
    assert [len(share) for share in shares] == [8, 6]
    first_epoch = shares[0][:4] + shares[1][:3]
    assert sorted(round(value, 6) for value in first_epoch) == expected
