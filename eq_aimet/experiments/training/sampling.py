"""Which sample comes when, and how it is changed; both follow from seed, epoch and index alone."""

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


def _generator(*entropy: int) -> torch.Generator:
    """Return a generator that is the same for the same numbers, and unrelated for any others."""
    state = np.random.SeedSequence(entropy).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
