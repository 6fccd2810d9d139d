"""Batches of patches, whose order and augmentation follow from the seed, the epoch and the index alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, turn_and_flip

__all__ = [
    "AugmentedDataset",
    "EpochSampler",
    "ImageDataModule",
    "LabelledImages",
    "PatchDataModule",
    "ShareSampler",
]

Sample = tuple[torch.Tensor, torch.Tensor]
Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class LabelledImages(Protocol):
    """A data set of images of one size, (channels, n, n), and labels, each an int64 scalar."""

    @property
    def labels(self) -> torch.Tensor:
        """All labels in the samples' order, int64, (samples,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index) of all samples, shuffled by the seed and the epoch.

    The epoch travels with the index, so that workers which live longer than one epoch augment each epoch
    anew. Of several processes each yields its own samples, all the same number of them: up to
    `processes - 1` samples, others in each epoch, are left out.

    Args:
        size: The number of samples.
        seed: Not negative.
        process: Which of the processes this one is, counted from 0.
        processes: How many share the samples.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> sampler.set_epoch(2)
        >>> sorted(sampler)
        [(2, 0), (2, 1), (2, 2), (2, 3)]
        >>> halves = [EpochSampler(4, seed=0, process=process, processes=2) for process in (0, 1)]
        >>> sorted(index for half in halves for _, index in half)
        [0, 1, 2, 3]
    """

    def __init__(self, size: int, *, seed: int, process: int = 0, processes: int = 1) -> None:
        # Lightning leaves a DistributedSampler as it is, and would wrap any other.
        super().__init__(range(size), processes, process, seed=seed, drop_last=True)  # type: ignore[arg-type]
        self.size = size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = torch.randperm(self.size, generator=_generator(self.seed, self.epoch))
        # Cut to a multiple of the number of processes first.
        own = order[: len(self) * self.num_replicas][self.rank :: self.num_replicas]
        return ((self.epoch, index) for index in own.tolist())

    def __len__(self) -> int:
        return self.size // self.num_replicas


class ShareSampler(DistributedSampler[int]):
    """Yields each index in one of the processes, in order; their numbers differ by one at most.

    torch's own gives some indices to two processes, so that these samples would count twice in a mean.

    Args:
        size: The number of samples.
        process: Which of the processes this one is, counted from 0.
        processes: How many share the samples.

    Example:
        >>> [list(ShareSampler(5, process=process, processes=2)) for process in (0, 1)]
        [[0, 2, 4], [1, 3]]
    """

    def __init__(self, size: int, *, process: int, processes: int) -> None:
        super().__init__(range(size), processes, process, shuffle=False)  # type: ignore[arg-type]
        self._indices = range(process, size, processes)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


class AugmentedDataset(Dataset[Sample]):
    """The samples of a data set, changed at random.

    Its index is (epoch, index).

    Args:
        dataset: Gives (image, label) for an index.
        seed: Not negative.
        augment: Takes an image and a generator; by default it turns by multiples of 90° and reflects.

    Example:
        >>> images = [(torch.arange(4.0).reshape(1, 2, 2), torch.tensor(1))]
        >>> augmented = AugmentedDataset(images, seed=0)
        >>> torch.equal(augmented[3, 0][0], augmented[3, 0][0])
        True
        >>> len({str(augmented[epoch, 0][0]) for epoch in range(100)})
        8
    """

    def __init__(
        self, dataset: LabelledImages | list[Sample], *, seed: int, augment: Augment = turn_and_flip
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.augment = augment

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        image, label = self.dataset[index]
        return self.augment(image, _generator(self.seed, epoch, index)), label


class ImageDataModule(lightning.LightningDataModule):
    """The three splits of a data set as loaders of batches.

    In a training by several processes each reads its share of the train and the valid split.

    Args:
        train: The split to learn from.
        valid: The split by which the best epoch is chosen.
        test: The split to measure on.
        batch_size: The number of images in a training batch of one process; a last batch that is not full
            waits for the next epoch.
        augment: What changes a training image at random; it takes an image and a generator.
        classes: The number of classes.
        seed: Of the order and the augmentation, not negative.
        workers: The number of processes that read images; 0 reads them in this one.
        pin_memory: Whether to copy batches to memory from which a GPU reads faster.

    Raises:
        InvalidArgumentError: The batch size or the number of workers is not possible.
    """

    def __init__(
        self,
        train: LabelledImages,
        valid: LabelledImages,
        test: LabelledImages,
        *,
        batch_size: int,
        augment: Augment = turn_and_flip,
        classes: int = 2,
        seed: int = 0,
        workers: int = 0,
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
        self.train, self.valid, self.test = train, valid, test
        self.batch_size = batch_size
        self.augment = augment
        self.classes = classes
        self.seed = seed
        self.workers = workers
        self.pin_memory = pin_memory

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the shuffled and augmented batches of the train split."""
        process, processes = self._place(len(self.train))
        sampler = EpochSampler(len(self.train), seed=self.seed, process=process, processes=processes)
        return DataLoader(
            AugmentedDataset(self.train, seed=self.seed, augment=self.augment),
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the batches of the valid split, in its order and as they are."""
        process, processes = self._place(len(self.valid))
        sampler = ShareSampler(len(self.valid), process=process, processes=processes)
        return self._plain_loader(self.valid, sampler if processes > 1 else None)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the batches of the test split, in its order and as they are."""
        return self._plain_loader(self.test)

    def images(self, split: str, count: int) -> torch.Tensor:
        """Return the first images of a split, at most `count`, as they are: (count, channels, n, n)."""
        dataset = self._split(split)
        return torch.stack([dataset[index][0] for index in range(min(count, len(dataset)))])

    def labels(self, split: str) -> torch.Tensor:
        """Return all labels of a split, int64, (samples,)."""
        return self._split(split).labels

    def _split(self, split: str) -> LabelledImages:
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def _place(self, count: int) -> tuple[int, int]:
        """Return which process this is and how many there are, while a training runs."""
        if self.trainer is None or self.trainer.state.status != TrainerStatus.RUNNING:
            return 0, 1
        processes = self.trainer.world_size
        if count < processes:
            raise InvalidArgumentError(
                "--devices",
                received=f"{processes} processes for {count} images of a split",
                expected="at least one image for each process",
                remedy="Take fewer devices, or more images.",
            )
        return self.trainer.global_rank, processes

    def _plain_loader(
        self, dataset: LabelledImages, sampler: ShareSampler | None = None
    ) -> DataLoader[Sample]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            sampler=sampler,
            batch_size=max(64, self.batch_size),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.pin_memory,
        )


class PatchDataModule(ImageDataModule):
    """The three splits of a data set in PCam's layout.

    Args:
        folder: Where the splits lie.
        batch_size: The number of images in a training batch of one process.
        limits: How many samples of the train, valid and test split to use, from the first on; fewer where
            there are fewer.
        crop: The side of the images' crop about their centre, odd and within 33..95.
        cache_dir: Where gzipped files are unpacked to; by default the user's cache folder.
        **options: `augment`, `seed`, `workers` and `pin_memory` of `ImageDataModule`.

    Raises:
        InvalidArgumentError: The batch size, the number of workers, the crop or a limit is not possible.
        DataError: A file is missing, damaged or not in PCam's layout.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        batch_size: int,
        limits: tuple[int | None, int | None, int | None] = (None, None, None),
        crop: int = 95,
        cache_dir: str | Path | None = None,
        **options: Any,
    ) -> None:
        splits = (
            PCamDataset(folder, split, crop=crop, limit=limit, cache_dir=cache_dir)
            for split, limit in zip(("train", "valid", "test"), limits, strict=True)
        )
        super().__init__(*splits, batch_size=batch_size, **options)


def _generator(*entropy: int) -> torch.Generator:
    """Return a generator that is the same for the same numbers, and unrelated for any others."""
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
