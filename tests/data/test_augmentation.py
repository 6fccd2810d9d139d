from __future__ import annotations

import re

import pytest
import torch

from eq_aimet.data import turn_and_flip
from eq_aimet.errors import InvalidArgumentError


def test_all_eight_symmetries_are_equally_likely():
    image = torch.arange(9.0).reshape(1, 3, 3)
    symmetries = [
        flipped.flatten().tolist()
        for turns in range(4)
        for flipped in (image.rot90(turns, (1, 2)), image.rot90(turns, (1, 2)).transpose(1, 2))
    ]
    generator = torch.Generator().manual_seed(0)
    counts = [0] * 8
    for _ in range(1600):
        counts[symmetries.index(turn_and_flip(image, generator).flatten().tolist())] += 1
    assert min(counts) > 140
    assert max(counts) < 260


def test_the_generator_decides():
    image = torch.rand(3, 5, 5)
    first, again = (
        [turn_and_flip(image, generator) for _ in range(20)]
        for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, image) for a in first)


def test_the_default_generator_is_torchs():
    image = torch.rand(3, 5, 5)
    torch.manual_seed(5)
    first = torch.stack([turn_and_flip(image) for _ in range(8)])
    torch.manual_seed(5)
    assert torch.equal(torch.stack([turn_and_flip(image) for _ in range(8)]), first)


def test_the_image_stays_as_it_is():
    image = torch.rand(3, 5, 5)
    before = image.clone()
    for seed in range(20):
        turn_and_flip(image, torch.Generator().manual_seed(seed)).zero_()
    assert torch.equal(image, before)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 5, 5), (5, 5)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(
        InvalidArgumentError,
        match=re.escape(f"`image`: received shape {shape}; expected shape (channels, n, n)"),
    ):
        turn_and_flip(torch.zeros(shape))
