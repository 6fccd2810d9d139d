"""The data sets of a run, chosen by the settings of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.experiments.settings import Settings
    from eq_aimet.experiments.training import ImageDataModule

__all__ = ["count_images", "open_data"]


def open_data(settings: Settings, *, workers: int = 0) -> ImageDataModule:
    """Return the batches of the run's data set; synthetic tissue is written at first use.

    Args:
        settings: The settings of the run.
        workers: The number of processes that read images.

    Raises:
        DataError: A file is missing, a file is damaged, or a file holds something other than the data set.
    """
    from eq_aimet.experiments.training import ImageDataModule, PatchDataModule

    limits = (settings.train_images, settings.valid_images, settings.test_images)
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "workers": workers,
        "pin_memory": settings.device == "cuda",
    }
    if settings.dataset == "rotated-mnist":
        from eq_aimet.experiments.data import RotatedMnist, rotate, turn

        splits = [
            RotatedMnist(settings.data, split, size=settings.crop, limit=limit)
            for split, limit in zip(("train", "valid", "test"), limits, strict=True)
        ]
        augment = {"quarter": turn, "any": rotate}[settings.turns]  # a mirrored digit is not a digit
        return ImageDataModule(*splits, augment=augment, classes=10, **options)

    from eq_aimet.experiments.data import rotate_and_flip, turn_and_flip

    folder = _synthetic_folder(settings) if settings.data == "synthetic" else settings.data
    augment = {"quarter": turn_and_flip, "any": rotate_and_flip}[settings.turns]
    return PatchDataModule(folder, limits=limits, crop=settings.crop, augment=augment, **options)


def count_images(settings: Settings, limits: tuple[int | None, int | None, int | None]) -> Settings:
    """Return the settings with the number of images of each split, capped at its limit."""
    from eq_aimet.experiments.data import check_mnist, check_split

    if settings.dataset == "rotated-mnist":
        found = check_mnist(settings.data)
    else:
        found = {split: check_split(settings.data, split).count for split in ("train", "valid", "test")}
    train_images, valid_images, test_images = (
        count if limit is None else min(limit, count)
        for limit, count in zip(limits, found.values(), strict=True)
    )
    return replace(settings, train_images=train_images, valid_images=valid_images, test_images=test_images)


def _synthetic_folder(settings: Settings) -> Path:
    """Return the synthetic set's folder in the user's cache; the set is written at first use."""
    from platformdirs import user_cache_path

    from eq_aimet.experiments.data import write_synthetic_pcam

    counts = (settings.train_images, settings.valid_images, settings.test_images)
    folder = user_cache_path("eq_aimet") / "-".join(["synthetic", *map(str, counts)])
    return write_synthetic_pcam(folder, train=counts[0], valid=counts[1], test=counts[2])
