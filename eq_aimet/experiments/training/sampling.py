"""The order and the augmentation of samples; both depend only on the seed, the epoch and the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from eq_aimet.experiments.data import turn_and_flip
from eq_aimet.experiments.training.labelled_images import LabelledImages, Sample

__all__ = ["Augment", "AugmentedDataset", "EpochSampler", "ShareSampler"]

Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index) of all samples, shuffled by the seed and the epoch.

    Workers outlive an epoch. They get the epoch with each index, so that each epoch has its own augmentation.
    With several processes each process yields other samples, and all yield the same number. So each epoch
    leaves out up to `processes - 1` samples, chosen at random.

    Args:
        size: The number of samples.
        seed: Not negative.
        process: The number of this process, counted from 0.
        processes: The number of processes that share the samples.

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
        # Lightning keeps a DistributedSampler, and replaces any other sampler.
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
    """Yields each index in one of the processes, in order; the shares differ by at most one index.

    torch's own sampler gives some indices to two processes, so these samples would count twice in a mean.

    Args:
        size: The number of samples.
        process: The number of this process, counted from 0.
        processes: The number of processes that share the samples.

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
    """The samples of a data set with augmented images.

    A sample is asked for by (epoch, index).

    Args:
        dataset: A data set that returns (image, label) for an index.
        seed: The seed of the augmentation, not negative.
        augment: A function of an image and a generator that returns the augmented image; by default it turns
            by multiples of 90° and reflects.

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


def _generator(*entropy: int) -> torch.Generator:
    """Return a generator that depends only on the numbers; other numbers give an unrelated generator."""
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
