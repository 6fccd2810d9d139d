"""The protocol of a data set of labelled images."""

from __future__ import annotations

from typing import Protocol

import torch

__all__ = ["LabelledImages", "Sample"]

Sample = tuple[torch.Tensor, torch.Tensor]


class LabelledImages(Protocol):
    """A data set of images of one size, (channels, n, n), and labels, each an int64 scalar."""

    @property
    def labels(self) -> torch.Tensor:
        """All labels in the samples' order, int64, (samples,)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...
