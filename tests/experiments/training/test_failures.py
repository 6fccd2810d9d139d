"""What ends a training from outside is said, with the option to change."""

import os
import signal

import pytest
import torch
from tiny_training import EPOCHS, TinyData, assert_equal, classifier, train
from torch.utils.data import DataLoader

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.training import ImageClassifier, train_classifier
from eq_aimet.experiments.training.sampling import AugmentedDataset, EpochSampler


class FailingDataset(AugmentedDataset):
    """Does something at one sample of one epoch."""

    def __init__(self, dataset, moment, fail):
        super().__init__(dataset, seed=1)
        self.moment = moment
        self.fail = fail

    def __getitem__(self, key):
        if key == self.moment:
            self.fail()
        return super().__getitem__(key)


class DataOfWorkers(TinyData):
    """Reads by one worker, which fails at a sample of the third epoch."""

    workers = 1

    def __init__(self, fail, sample=20):
        super().__init__()
        self.moment = (2, sample)
        self.fail = fail

    def train_dataloader(self):
        return DataLoader(
            FailingDataset(self.train, self.moment, self.fail),
            batch_size=8,
            sampler=EpochSampler(32, seed=1),
            num_workers=1,
            persistent_workers=True,
        )


def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def meet_a_damaged_file():
    raise DataError("`x.h5`: received a damaged image; expected images that can be read. Get it again.")


@pytest.mark.parametrize("sample", [0, 20])
def test_a_dead_worker(tmp_path, sample):
    whole, history = train(tmp_path / "whole")
    with pytest.raises(
        InvalidArgumentError,
        # Whether torch hears of the death itself or of the lost connection first is a matter of chance.
        match=r"`workers`: received 1, of which one died \(.*\); expected workers that live as long as the "
        r"training\. .*`workers=0`\. .*the training resumes there when it is run again",
    ):
        train(tmp_path / "run", data=DataOfWorkers(be_killed, sample))
    seen = []
    resumed, resumed_history = train(tmp_path / "run", on_epoch=seen.append)
    assert [record.epoch for record in seen] == [3, 4]
    assert resumed_history == history
    assert_equal(whole.model.state_dict(), resumed.model.state_dict())


def test_a_damaged_file_that_a_worker_meets(tmp_path):
    with pytest.raises(DataError) as caught:
        train(tmp_path, data=DataOfWorkers(meet_a_damaged_file))
    assert str(caught.value) == (
        "`x.h5`: received a damaged image; expected images that can be read. Get it again."
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("Unable to allocate 2.00 GiB for an array"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory(tmp_path, error):
    failing = classifier()
    hook = failing.model.register_forward_hook(lambda *arguments: (_ for _ in ()).throw(error))
    with pytest.raises(
        InvalidArgumentError,
        match=r"`batch_size`: received 8, for which the memory is too small; .*Try `batch_size=4`\.",
    ):
        train_classifier(failing, TinyData(), tmp_path, epochs=1, progress=False)
    hook.remove()
    data = TinyData()
    data.batch_size = 1
    failing.model.register_forward_hook(lambda *arguments: (_ for _ in ()).throw(error))
    with pytest.raises(InvalidArgumentError, match=r"Try smaller images \(`crop`\)"):
        train_classifier(failing, data, tmp_path, epochs=1, progress=False)


def test_memory_that_torch_really_lacks(tmp_path):
    failing = classifier()
    failing.model.register_forward_hook(lambda *arguments: torch.empty(1 << 60))
    with pytest.raises(InvalidArgumentError, match="`batch_size`: received 8"):
        train_classifier(failing, TinyData(), tmp_path, epochs=1, progress=False)


def test_other_errors_stay_as_they_are(tmp_path):
    failing = classifier()
    failing.model.register_forward_hook(lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_classifier(failing, TinyData(), tmp_path, epochs=1, progress=False)


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_training_loss_that_is_not_finite(tmp_path, value, shown):
    failing = classifier()
    steps = []

    def spoil(module, inputs, logits):
        if module.training:
            steps.append(failing.current_epoch)
        return logits * value if len(steps) == 6 else logits  # the second batch of the second epoch

    failing.model.register_forward_hook(spoil)
    with pytest.raises(
        InvalidArgumentError,
        match=r"`learning_rate`: received 0\.02, with which the training loss of epoch 2 became "
        r"(nan|inf); expected a learning rate with which the loss stays finite\. Try `learning_rate=0.002`\.",
    ):
        train_classifier(failing, TinyData(), tmp_path, epochs=EPOCHS, progress=False)
    assert steps == [0] * 4 + [1] * 2
    _, history = train(tmp_path)
    assert [record.epoch for record in history] == [1, 2, 3, 4]


def test_a_validation_loss_that_is_not_finite(tmp_path):
    failing = classifier()
    failing.model.register_forward_hook(
        lambda module, inputs, logits: logits if module.training else logits * float("nan")
    )
    with pytest.raises(InvalidArgumentError, match="with which the validation loss of epoch 1 became nan"):
        train_classifier(failing, TinyData(), tmp_path, epochs=1, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "`devices`: received 0; expected an integer of at least 1"),
        ({"nodes": -1}, "`nodes`: received -1; expected an integer of at least 1"),
        ({"device": "tpu"}, "`device`: received 'tpu'; expected one of 'cpu', 'cuda'"),
        ({"precision": "16"}, "`precision`: received '16' for a CPU; expected '16' on a CUDA device only"),
        ({"precision": 16}, "`precision`: received 16; expected one of '32', 'bf16', '16'"),
        ({"epochs": 0}, "`epochs`: received 0; expected an integer of at least 1"),
        ({"epochs": 2.5}, "`epochs`: received 2.5; expected an integer of at least 1"),
        ({"compile": None}, "`compile`: received None; expected True or False"),
        ({"data": [1]}, "`data`: received a list; expected a LightningDataModule"),
    ],
)
def test_impossible_arguments_write_nothing(tmp_path, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        train(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    with pytest.raises(
        InvalidArgumentError, match="`device`: received 'cuda', but torch finds no CUDA device"
    ):
        train(tmp_path, device="cuda")


@pytest.mark.parametrize("rate", [0, -1.0, float("nan"), float("inf"), "0.1", None])
def test_impossible_learning_rates(rate):
    with pytest.raises(InvalidArgumentError, match=r"`learning_rate`: .*; expected a number above 0"):
        ImageClassifier(torch.nn.Linear(2, 2), learning_rate=rate)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_images_that_are_not_finite_are_blamed_themselves(tmp_path, split):
    data = TinyData()
    getattr(data, split).tensors[0][3, 0, 0, 0] = float("nan")
    with pytest.raises(
        InvalidArgumentError, match="`data`: received images with NaN or infinite values in epoch 1"
    ):
        train(tmp_path, data=data)
