"""Batches of patches, whose order and augmentation follow from the seed, the epoch and the index alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eq_aimet.data import PCamDataset, turn_and_flip
from eq_aimet.errors import InvalidArgumentError

__all__ = ["AugmentedDataset", "EpochSampler", "PatchDataModule"]

Sample = tuple[torch.Tensor, torch.Tensor]


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) of all samples, shuffled by the seed and the epoch.

    The epoch travels with the index, so that workers which live longer than one epoch augment each epoch
    anew.

    Args:
        size: the number of samples.
        seed: not negative.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sampler.set_epoch(2)
        >>> sorted(sampler)
        [(2, 0), (2, 1), (2, 2), (2, 3)]
    """

    def __init__(self, size: int, *, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, counted from 0, in place. Lightning calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(self.size, generator=_generator(self.seed, self.epoch))
        return ((self.epoch, index) for index in order.tolist())

    def __len__(self) -> int:
        return self.size


class AugmentedDataset(Dataset[Sample]):
    """The samples of a data set, turned by multiples of 90° and reflected at random.

    Its index is (epoch, index).

    Args:
        dataset: gives (image, label) for an index.
        seed: not negative.

    Example:
        >>> images = [(torch.arange(4.0).reshape(1, 2, 2), torch.tensor(1))]
        >>> augmented = AugmentedDataset(images, seed=0)
        >>> torch.equal(augmented[3, 0][0], augmented[3, 0][0])
        True
        >>> len({str(augmented[epoch, 0][0]) for epoch in range(100)})
        8
    """

    def __init__(self, dataset: Dataset[Sample] | list[Sample], *, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image, label = self.dataset[index]
        return turn_and_flip(image, _generator(self.seed, epoch, index)), label


class PatchDataModule(lightning.LightningDataModule):
    """The three splits of a data set in PCam's layout, as loaders of batches.

    Args:
        folder: where the splits lie.
        batch_size: the number of images in a training batch; a last batch that is not full waits for the
            next epoch.
        limits: how many samples of the train, valid and test split to use, from the first on; fewer where
            there are fewer.
        crop: the side of the images' crop about their centre, odd and within 33..95.
        seed: of the order and the augmentation, not negative.
        workers: the number of processes that read images; 0 reads them in this one.
        cache_dir: where gzipped files are unpacked to; by default the user's cache folder.
        pin_memory: whether to copy batches to memory from which a GPU reads faster.

    Raises:
        InvalidArgumentError: the batch size, the number of workers, the crop or a limit is not possible.
        DataError: a file is missing, damaged or not in PCam's layout.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int,
        limits: tuple[int | None, int | None, int | None] = (None, None, None),
        crop: int = 95,
        seed: int = 0,
        workers: int = 0,
        cache_dir: str | Path | None = None,
        pin_memory: bool = False,
    ) -> None:
        super().__init__()
        if workers < 0:
            raise InvalidArgumentError(
                "--workers",
                received=workers,
                expected="0 or a positive integer",
                remedy="Take 0 to read the images in the training's own process.",
            )
        if batch_size < 1:
            raise InvalidArgumentError(
                "--batch-size",
                received=batch_size,
                expected="an integer of at least 1",
                remedy="Try 32.",
            )
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.pin_memory = pin_memory
        self.train, self.valid, self.test = (
            PCamDataset(folder, split, crop=crop, limit=limit, cache_dir=cache_dir)
            for split, limit in zip(("train", "valid", "test"), limits, strict=True)
        )

    def train_dataloader(self) -> DataLoader[Sample]:
        """Returns the shuffled and augmented batches of the train split."""
        return DataLoader(
            AugmentedDataset(self.train, seed=self.seed),
            batch_size=self.batch_size,
            sampler=EpochSampler(len(self.train), seed=self.seed),
            drop_last=len(self.train) >= self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Returns the batches of the valid split, in its order and as they are."""
        return self._plain_loader(self.valid)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Returns the batches of the test split, in its order and as they are."""
        return self._plain_loader(self.test)

    def images(self, split: str, count: int) -> torch.Tensor:
        """Returns the first images of a split, at most `count`, as they are: (count, 3, crop, crop)."""
        dataset: PCamDataset = {"train": self.train, "valid": self.valid, "test": self.test}[split]
        return torch.stack([dataset[index][0] for index in range(min(count, len(dataset)))])

    def _plain_loader(self, dataset: PCamDataset) -> DataLoader[Sample]:
        return DataLoader(
            dataset,
            batch_size=max(64, self.batch_size),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
        )


def _generator(*entropy: int) -> torch.Generator:
    """Returns a generator that is the same for the same numbers, and unrelated for any others."""
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
