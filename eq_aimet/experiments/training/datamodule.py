"""Batches of images; order and augmentation depend only on the seed, the epoch and the index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader

from eq_aimet.arguments import check_integer
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data import PCamDataset, turn_and_flip
from eq_aimet.experiments.training.labelled_images import LabelledImages, Sample
from eq_aimet.experiments.training.sampling import Augment, AugmentedDataset, EpochSampler, ShareSampler

__all__ = ["ImageDataModule", "PatchDataModule"]


class ImageDataModule(lightning.LightningDataModule):
    """The three splits of a data set as loaders of batches.

    If several processes train, each process reads its share of the train split and of the valid split.

    Args:
        train: The split to learn from.
        valid: The split by which the best epoch is chosen.
        test: The split to measure on.
        batch_size: The number of images in a training batch of one process. An epoch leaves out a last batch
            that is not full.
        augment: The function that changes a training image at random; it takes an image and a generator.
        classes: The number of classes.
        seed: The seed of the order and the augmentation, not negative.
        workers: The number of processes that read images; with 0 the training's own process reads them.
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
        workers = check_integer("workers", workers, least=0, remedy="Take 0 to use no further process.")
        batch_size = check_integer("batch_size", batch_size, remedy="Try 32.")
        classes = check_integer("classes", classes, least=2, remedy="Give the number of classes.")
        seed = check_integer("seed", seed, least=0, remedy="Take 0, 1, 2, ...")
        for name, split in (("train", train), ("valid", valid), ("test", test)):
            _check_labels(name, split, classes)
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
        """Return the batches of the valid split, in order and without augmentation."""
        process, processes = self._place(len(self.valid))
        sampler = ShareSampler(len(self.valid), process=process, processes=processes)
        return self._plain_loader(self.valid, sampler if processes > 1 else None)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the batches of the test split, in order and without augmentation."""
        return self._plain_loader(self.test)

    def images(self, split: str, count: int) -> torch.Tensor:
        """Return the first images of a split, at most `count`, not augmented, (count, channels, n, n)."""
        dataset = self._split(split)
        return torch.stack([dataset[index][0] for index in range(min(count, len(dataset)))])

    def labels(self, split: str) -> torch.Tensor:
        """Return all labels of a split, int64, (samples,)."""
        return self._split(split).labels

    def _split(self, split: str) -> LabelledImages:
        return {"train": self.train, "valid": self.valid, "test": self.test}[split]

    def _place(self, count: int) -> tuple[int, int]:
        """Return this process' number and the number of processes; 0 and 1 unless a training runs."""
        if self.trainer is None or self.trainer.state.status != TrainerStatus.RUNNING:
            return 0, 1
        processes = self.trainer.world_size
        if count < processes:
            raise InvalidArgumentError(
                "devices",
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
        folder: The folder of the splits' files.
        batch_size: The number of images in a training batch of one process.
        limits: The largest numbers of samples to use of the train, valid and test split; None uses all.
        crop: The side of the images' crop about their centre, odd and within 33..95.
        cache_dir: The folder for unpacked copies of gzipped files; by default the user's cache folder.
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


def _check_labels(name: str, split: LabelledImages, classes: int) -> None:
    labels = split.labels
    if (
        labels.shape == (len(split),)
        and len(split)
        and int(labels.min()) >= 0
        and int(labels.max()) < classes
    ):
        return
    found = f", from {labels.min()} to {labels.max()}" if labels.numel() else ""
    raise InvalidArgumentError(
        name,
        received=f"labels of shape {tuple(labels.shape)}{found}, for {len(split)} images",
        expected=f"at least one image, and for each a label from 0 to {classes - 1}",
        remedy="Count the classes from 0, and give their number as `classes`.",
    )
