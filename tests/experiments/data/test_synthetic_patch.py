from __future__ import annotations

import numpy as np
import pytest

from eq_aimet.experiments.data import synthetic_patch
from eq_aimet.experiments.data.nuclei import CENTRE_HALF_WIDTH, LARGEST_REACH, MIDDLE

SQUARE = slice(32, 64)


def in_the_centre(nuclei: np.ndarray) -> np.ndarray:
    distance = np.maximum(abs(nuclei["row"] - MIDDLE), abs(nuclei["column"] - MIDDLE))
    return distance <= CENTRE_HALF_WIDTH


@pytest.fixture(scope="module")
def patches():
    return [synthetic_patch(0, 0, index) for index in range(400)]


@pytest.fixture(scope="module")
def pairs():
    """The same patches with either label."""
    return [[synthetic_patch(1, 0, index, label=label) for label in (0, 1)] for index in range(60)]


def test_the_same_arguments_give_the_same_patch():
    first, again = synthetic_patch(3, 1, 17), synthetic_patch(3, 1, 17)
    assert np.array_equal(first.image, again.image)
    assert first.label == again.label
    assert np.array_equal(first.nuclei, again.nuclei)


@pytest.mark.parametrize("other", [(4, 1, 17), (3, 0, 17), (3, 1, 18)])
def test_other_arguments_give_another_patch(other):
    assert abs(synthetic_patch(3, 1, 17).image.astype(int) - synthetic_patch(*other).image).mean() > 5


def test_labels_are_balanced_in_pairs_and_in_random_order(patches):
    labels = np.array([patch.label for patch in patches]).reshape(-1, 2)
    assert (labels.sum(axis=1) == 1).all()
    assert 0.35 < labels[:, 0].mean() < 0.65


def test_the_label_says_whether_a_tumour_nucleus_is_in_the_centre(patches):
    for patch in patches:
        assert patch.label == (patch.nuclei["tumour"] & in_the_centre(patch.nuclei)).any()


def test_the_surroundings_do_not_know_the_label(pairs):
    rows, columns = np.mgrid[:96, :96]
    compared = 0
    for negative, positive in pairs:
        outside = [patch.nuclei[~in_the_centre(patch.nuclei)] for patch in (negative, positive)]
        assert np.array_equal(*outside)
        reached = np.zeros((96, 96), bool)
        for patch in (negative, positive):
            for nucleus in patch.nuclei[in_the_centre(patch.nuclei)]:
                down, across = abs(rows - np.rint(nucleus["row"])), abs(columns - np.rint(nucleus["column"]))
                reached |= np.maximum(down, across) <= LARGEST_REACH
        assert np.array_equal(negative.image[~reached], positive.image[~reached])
        assert not np.array_equal(negative.image[SQUARE, SQUARE], positive.image[SQUARE, SQUARE])
        compared += (~reached).sum()
    assert compared > 60 * 96 * 96 / 3


def test_tumour_nuclei_occur_around_either_label(patches):
    for label in (0, 1):
        chosen = [patch.nuclei for patch in patches if patch.label == label]
        around = [int((nuclei["tumour"] & ~in_the_centre(nuclei)).sum()) for nuclei in chosen]
        assert np.mean(around) > 1
        assert min(around) == 0


def test_the_centres_colours_do_not_give_the_label_away(patches):
    centres = np.stack([patch.image[SQUARE, SQUARE].reshape(-1, 3) for patch in patches]).astype(float)
    features = np.concatenate([centres.mean(axis=1), centres.std(axis=1), np.ones((len(centres), 1))], axis=1)
    signs = np.array([2 * patch.label - 1 for patch in patches])
    weights, *_ = np.linalg.lstsq(features[:200], signs[:200], rcond=None)
    accuracy = (np.sign(features[200:] @ weights) == signs[200:]).mean()
    assert accuracy < 0.8


def test_the_centres_texture_gives_the_label_away(pairs):
    # What tells tumour nuclei apart is their size: little else is dark five pixels around.
    def darkest_disc(image: np.ndarray) -> float:
        red = image[SQUARE, SQUARE, 0].astype(float)
        windows = np.lib.stride_tricks.sliding_window_view(red, (9, 9))
        return windows.mean(axis=(2, 3)).min()

    darker = [darkest_disc(positive.image) < darkest_disc(negative.image) for negative, positive in pairs]
    assert np.mean(darker) > 0.75


def asymmetries(images: np.ndarray) -> np.ndarray:
    """Returns how many standard errors off zero six statistics are, each of mean zero under D4's symmetry."""
    light = images.mean(axis=3)
    vertical = light[:, 2:, 1:-1] - light[:, :-2, 1:-1]
    horizontal = light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    ramp = np.arange(96) - 47.5
    statistics = np.stack(
        [
            (light * ramp[:, None]).mean(axis=(1, 2)),
            (light * ramp).mean(axis=(1, 2)),
            (light * ramp[:, None] * ramp).mean(axis=(1, 2)),
            (abs(vertical) - abs(horizontal)).mean(axis=(1, 2)),
            (vertical * horizontal).mean(axis=(1, 2)),
            (light * (ramp[:, None] ** 2 - ramp**2)).mean(axis=(1, 2)),
        ]
    )
    return abs(statistics.mean(axis=1)) / (statistics.std(axis=1) / np.sqrt(len(images)))


def test_no_direction_is_preferred(patches):
    images = np.stack([patch.image for patch in patches]).astype(float)
    assert asymmetries(images).max() < 4
    # The statistics do see a gradient of the lighting, and fibres that all run the same way.
    assert asymmetries(images + np.linspace(-3, 3, 96)[:, None, None]).max() > 4
    steeper = [
        image
        if abs(np.diff(image, axis=0)).sum() > abs(np.diff(image, axis=1)).sum()
        else image.swapaxes(0, 1)
        for image in images
    ]
    assert asymmetries(np.stack(steeper)).max() > 4


def test_nuclei_prefer_no_direction(patches):
    nuclei = np.concatenate([patch.nuclei for patch in patches])
    error = 1 / np.sqrt(len(nuclei))
    for turns in (1, 2, 4):
        assert abs(np.exp(1j * turns * nuclei["angle"].astype(float)).mean()) < 4 * error
    down, across = nuclei["row"] - MIDDLE, nuclei["column"] - MIDDLE
    # Nuclei of one patch are not independent of each other, so patches are what counts.
    per_patch = 1 / np.sqrt(len(patches))
    assert abs(down.mean()) < 4 * 33 * per_patch
    assert abs(across.mean()) < 4 * 33 * per_patch


def test_it_looks_like_stained_tissue(patches):
    colours = np.stack([patch.image for patch in patches]).reshape(-1, 3).mean(axis=0)
    red, green, blue = colours
    assert red > blue > green  # pink and purple
    for patch in patches[:50]:
        inside = np.maximum(abs(patch.nuclei["row"] - MIDDLE), abs(patch.nuclei["column"] - MIDDLE)) < 47
        nuclei = patch.nuclei[inside]
        at = np.rint(nuclei["row"]).astype(int), np.rint(nuclei["column"]).astype(int)
        assert patch.image[at][:, 0].mean() < patch.image[:, :, 0].mean() - 20
