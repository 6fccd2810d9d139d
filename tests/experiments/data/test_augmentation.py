from __future__ import annotations

import math
import re

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.data import rotate, rotate_and_flip, turn, turn_and_flip


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


def direction(image):
    """The angle at which the brightest half of the image lies, in degrees counter-clockwise."""
    rows, columns = torch.meshgrid(*2 * [torch.arange(9.0) - 4], indexing="ij")
    return math.degrees(math.atan2(-float((image * rows).sum()), float((image * columns).sum()))) % 360


@pytest.mark.parametrize("augment", [rotate, rotate_and_flip])
def test_each_angle_is_equally_likely(augment):
    image = torch.zeros(1, 9, 9)
    image[0, 3:6, 5:8] = 1  # right of the centre, inside of the inscribed circle
    generator = torch.Generator().manual_seed(0)
    angles = [direction(augment(image, generator)[0]) for _ in range(1200)]
    counts = [sum(30 * sector <= angle < 30 * sector + 30 for angle in angles) for sector in range(12)]
    assert min(counts) > 70
    assert max(counts) < 130


def test_only_a_flip_changes_the_sense_of_rotation():
    image = torch.zeros(2, 9, 9)
    image[0, 3:6, 5:8] = image[1, 1:4, 3:6] = 1  # the second lies 90° counter-clockwise of the first
    for augment, expected in ((rotate, {90}), (rotate_and_flip, {90, 270})):
        generator = torch.Generator().manual_seed(1)
        turned = [augment(image, generator) for _ in range(50)]
        between = {round((direction(second) - direction(first)) % 360, -1) for first, second in turned}
        assert between == expected


@pytest.mark.parametrize("augment", [rotate, rotate_and_flip])
def test_the_generator_decides_the_angle(augment):
    image = torch.rand(3, 5, 5)
    before = image.clone()
    first, again = (augment(image, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(image, torch.Generator().manual_seed(4)))
    assert torch.equal(image, before)


@pytest.mark.parametrize("augment", [turn, turn_and_flip, rotate, rotate_and_flip])
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 5, 5), (5, 5)])
def test_other_shapes_are_refused(augment, shape):
    with pytest.raises(
        InvalidArgumentError,
        match=re.escape(f"`image`: received shape {shape}; expected shape (channels, n, n)"),
    ):
        augment(torch.zeros(shape))
