import pytest
import torch

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, write_synthetic_pcam
from eq_aimet.experiments.training import PatchDataModule


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_synthetic_pcam(
        tmp_path_factory.mktemp("pcam"), train=12, valid=4, test=4, seed=1, progress=False
    )


def epoch_of(data, epoch):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_an_epoch_follows_from_the_seed_and_its_number_alone(folder):
    first, second = (PatchDataModule(folder, batch_size=4, crop=33, seed=3) for _ in range(2))
    epoch_of(second, 0)  # a history that must not matter
    assert torch.equal(epoch_of(first, 1)[0], epoch_of(second, 1)[0])
    assert not torch.equal(epoch_of(first, 1)[0], epoch_of(first, 2)[0])
    other = PatchDataModule(folder, batch_size=4, crop=33, seed=4)
    assert not torch.equal(epoch_of(first, 1)[0], epoch_of(other, 1)[0])


def test_workers_give_the_same_epochs(folder):
    alone, helped = (PatchDataModule(folder, batch_size=4, crop=33, workers=workers) for workers in (0, 1))
    loader = helped.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        images = torch.cat([images for images, _ in loader])
        assert torch.equal(images, epoch_of(alone, epoch)[0])


def test_an_epoch_has_each_image_once_with_its_label_turned_by_quarters(folder):
    data = PatchDataModule(folder, batch_size=4, crop=33, seed=3)
    images, labels = epoch_of(data, 0)
    plain = PCamDataset(folder, "train", crop=33)
    found = []
    turned = 0
    for image, label in zip(images, labels, strict=True):
        elements = [torch.rot90(x, k, (1, 2)) for k in range(4) for x in (image, image.flip(2))]
        matches = [i for i, (other, _) in enumerate(plain) if any(torch.equal(other, e) for e in elements)]
        assert len(matches) == 1
        assert plain[matches[0]][1] == label
        turned += not torch.equal(plain[matches[0]][0], image)
        found.append(matches[0])
    assert sorted(found) == list(range(12))
    assert found != sorted(found)
    assert turned > 4


def test_a_last_batch_that_is_not_full_is_left_out(folder):
    assert [len(labels) for _, labels in PatchDataModule(folder, batch_size=5).train_dataloader()] == [5, 5]
    assert [len(labels) for _, labels in PatchDataModule(folder, batch_size=50).train_dataloader()] == [12]


def test_validation_and_test_images_are_as_they_are(folder):
    data = PatchDataModule(folder, batch_size=4, crop=33, limits=(4, 3, 2))
    for split, loader, count in (("valid", data.val_dataloader(), 3), ("test", data.test_dataloader(), 2)):
        images = torch.cat([images for images, _ in loader])
        plain = PCamDataset(folder, split, crop=33)
        assert torch.equal(images, torch.stack([plain[index][0] for index in range(count)]))
    assert torch.equal(data.images("test", 99), images)


def test_impossible_arguments(folder, tmp_path):
    with pytest.raises(InvalidArgumentError, match="`workers`: received -1"):
        PatchDataModule(folder, batch_size=4, workers=-1)
    with pytest.raises(InvalidArgumentError, match="`batch_size`: received 0"):
        PatchDataModule(folder, batch_size=0)
    with pytest.raises(DataError, match="no such folder"):
        PatchDataModule(tmp_path / "missing", batch_size=4)
