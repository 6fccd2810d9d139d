"""Damaged checkpoints: the last whole one is used, and said."""

import logging
import os
import re
import shutil

import pytest
import torch
from tiny_training import EPOCHS, TinyData, assert_equal, classifier, train

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.training import best_weights, train_classifier
from eq_aimet.experiments.training.checkpoints import load_checkpoint, write_checkpoint


def truncate(path):
    path.write_bytes(path.read_bytes()[:-500])


def flip_a_bit_of_a_tensor(path):
    content = bytearray(path.read_bytes())
    weight = load_checkpoint(path)["state_dict"]["model.5.weight"].numpy().tobytes()
    content[content.index(weight) + len(weight) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def replace_by_text(path):
    path.write_text("not a checkpoint")


def replace_by_values(path):
    torch.save([1, 2], path)


def replace_by_another_network(path):
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.5.weight"] = torch.zeros(3, 7)
    torch.save(checkpoint, path)


def replace_by_weights(path):
    torch.save({"state_dict": classifier().state_dict()}, path)


DAMAGES = [
    truncate,
    flip_a_bit_of_a_tensor,
    empty,
    replace_by_text,
    replace_by_values,
    replace_by_another_network,
    replace_by_weights,
]


@pytest.fixture(scope="module", params=[False, True], ids=["improving", "noisy"])
def runs(request, tmp_path_factory):
    """A whole training, one that stopped after three epochs, and their data."""
    folder = tmp_path_factory.mktemp("runs")
    data = TinyData(noisy=request.param)
    trained, history = train(folder / "whole", data=data)
    with pytest.raises(KeyboardInterrupt):
        train(folder / "stopped", data=data, stop_after=3)
    return folder, data, trained, history


@pytest.fixture
def stopped(runs, tmp_path):
    return shutil.copytree(runs[0] / "stopped", tmp_path / "stopped")


def assert_goes_on(runs, folder, from_epoch, **options):
    whole_folder, data, whole, history = runs
    seen = []
    resumed, resumed_history = train(folder, data=data, on_epoch=seen.append, **options)
    assert [record.epoch for record in seen] == list(range(from_epoch, EPOCHS + 1))
    assert resumed_history == history
    assert_equal(resumed.model.state_dict(), whole.model.state_dict())
    assert_equal(best_weights(folder), best_weights(whole_folder / "whole"))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_checkpoint_before_a_damaged_one_is_used_and_said(runs, stopped, damage):
    damage(stopped / "last.ckpt")
    content = (stopped / "last.ckpt").read_bytes()
    notices = []
    assert_goes_on(runs, stopped, 3, on_notice=notices.append)
    (notice,) = notices
    assert re.search(
        r"last\.ckpt`: received a .*; training resumes from `previous\.ckpt`, after epoch 2\. "
        r"The file is kept as `damaged\.ckpt`\.$",
        notice,
    )
    assert (stopped / "damaged.ckpt").read_bytes() == content


def test_a_damaged_checkpoint_is_logged_where_nobody_asks(runs, stopped, caplog):
    empty(stopped / "last.ckpt")
    with caplog.at_level(logging.WARNING, logger="eq_aimet"):
        train(stopped, data=runs[1])
    assert ["training resumes from `previous.ckpt`" in message for message in caplog.messages] == [True]


def test_a_missing_last_checkpoint_costs_an_epoch(runs, stopped):
    (stopped / "last.ckpt").unlink()
    notices = []
    assert_goes_on(runs, stopped, 3, on_notice=notices.append)
    assert notices == []


@pytest.mark.parametrize("damage", [*DAMAGES[:5], lambda path: path.unlink()])
def test_best_weights_that_are_damaged_or_missing_are_written_anew(runs, stopped, damage):
    damage(stopped / "best.ckpt")
    existed = (stopped / "best.ckpt").exists()
    notices = []
    assert_goes_on(runs, stopped, 4, on_notice=notices.append)
    assert [notice.endswith("it is written again from the last checkpoint.") for notice in notices] == (
        [True] if existed else []
    )


def test_best_weights_of_a_finished_training_are_mended_too(runs, tmp_path):
    finished = shutil.copytree(runs[0] / "whole", tmp_path / "finished")
    flip_a_bit_of_a_tensor(finished / "best.ckpt")
    with pytest.raises(DataError, match="the checksum of its part"):
        best_weights(finished)
    assert_goes_on(runs, finished, EPOCHS + 1, on_notice=lambda line: None)


def test_best_weights_of_another_epoch_are_put_right(runs, stopped):
    # As after a kill between the two writes.
    best = torch.load(stopped / "best.ckpt", weights_only=True)
    best["epoch"], best["valid_loss"] = 4, 0.0
    best["state_dict"] = {name: torch.zeros_like(value) for name, value in best["state_dict"].items()}
    torch.save(best, stopped / "best.ckpt")
    assert_goes_on(runs, stopped, 4)


def test_without_a_whole_checkpoint_nothing_is_changed(stopped):
    truncate(stopped / "last.ckpt")
    flip_a_bit_of_a_tensor(stopped / "previous.ckpt")
    before = {path: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(
        DataError,
        match=r"as `last\.ckpt` a file that can't be read .*; as `previous\.ckpt` a damaged file .*"
        r"expected at least one whole checkpoint.*Remove the run's folder to start again",
    ):
        train(stopped)
    assert {path: path.read_bytes() for path in stopped.iterdir()} == before


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="received a folder that can't be made or written to"):
        train(tmp_path / "file" / "run")


def edit(path, change):
    """Changes a checkpoint by torch itself, as somebody may by hand."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def forge(path, change):
    """Changes a checkpoint and gives it the checksum of what it holds."""
    checkpoint = load_checkpoint(path)
    change(checkpoint)
    write_checkpoint(checkpoint, path)


CHANGES = {
    "no loops": lambda checkpoint: checkpoint.update(loops=None),
    "an epoch in words": lambda checkpoint: checkpoint.update(epoch="three"),
    "no optimizer": lambda checkpoint: checkpoint.update(optimizer_states=[]),
    "another optimizer": lambda checkpoint: checkpoint["optimizer_states"][0].clear(),
    "no schedule": lambda checkpoint: checkpoint.update(lr_schedulers=[{}]),
    "no callbacks": lambda checkpoint: checkpoint.update(callbacks=None),
    "no records": lambda checkpoint: checkpoint["callbacks"].update(History={"records": [{}]}),
    "no best epoch": lambda checkpoint: checkpoint["callbacks"].update(
        EpochCheckpoint={"best": {"epoch": 1}}
    ),
    "other weights": lambda checkpoint: checkpoint["state_dict"].update(more=torch.zeros(3)),
    "weights in words": lambda checkpoint: checkpoint["state_dict"].update({"model.5.weight": "many"}),
}


@pytest.mark.parametrize("how", [edit, forge])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_checkpoints_that_somebody_changed_are_one_clear_error(runs, stopped, change, how):
    (stopped / "previous.ckpt").unlink()
    how(stopped / "last.ckpt", change)
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    with pytest.raises(DataError, match=r"received .*a .*expected .*Remove the run's folder to start again"):
        train(stopped, data=runs[1])
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def held(module):
    """Returns copies of all tensors, and the plain attributes of each module by its name."""
    tensors = {name: value.clone() for name, value in module.state_dict().items()}
    kinds = (bool, int, float, str, type(None), torch.Tensor)
    attributes = {
        name: {key: str(value) for key, value in vars(part).items() if isinstance(value, kinds)}
        for name, part in module.named_modules()
    }
    return tensors, attributes


@pytest.mark.parametrize("change", ["another optimizer", "no schedule", "no records", "other weights"])
def test_a_classifier_that_can_not_resume_stays_as_it_was(runs, stopped, change):
    (stopped / "previous.ckpt").unlink()
    forge(stopped / "last.ckpt", CHANGES[change])
    own = classifier().eval()
    own.model[3].train()  # a mode of its own
    parameters = list(own.parameters())
    tensors, attributes = held(own)
    with pytest.raises(DataError):
        train_classifier(own, runs[1], stopped, epochs=EPOCHS, progress=False)
    assert_equal(held(own)[0], tensors)
    assert held(own)[1] == attributes
    assert all(left is right for left, right in zip(own.parameters(), parameters, strict=True))


def test_data_that_fail_leave_the_classifier_as_it_was(stopped):
    class NoData(TinyData):
        def train_dataloader(self):
            raise DataError("no image")

    own = classifier()
    tensors, attributes = held(own)
    with pytest.raises(DataError, match="no image"):
        train_classifier(own, NoData(), stopped, epochs=EPOCHS, progress=False)
    assert_equal(held(own)[0], tensors)
    assert held(own)[1] == attributes


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_pipe_does_not_hang(runs, stopped, name):
    (stopped / name).unlink()
    os.mkfifo(stopped / name)
    notices = []
    assert_goes_on(runs, stopped, 3 if name == "last.ckpt" else 4, on_notice=notices.append)
    assert "received a path that is not a file" in notices[0]


def test_fewer_epochs_than_there_are(stopped):
    with pytest.raises(
        InvalidArgumentError, match=r"`epochs`: received 2, but .*last\.ckpt` holds .* of 3 epochs"
    ):
        train(stopped, epochs=2)
