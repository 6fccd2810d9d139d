"""The nuclei of a synthetic patch: their kinds, places and shapes.

Turns by 90° and reflections of the patch change no distribution here: a place is uniform on a square about
the middle, or normal about a uniform point; an angle is uniform on the circle. The nuclei outside the central
square do not depend on the label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "NUCLEUS",
    "Nuclei",
    "MIDDLE",
    "CENTRE_HALF_WIDTH",
    "LARGEST_REACH",
    "draw_surround",
    "draw_centre",
]

MIDDLE = 47.5
"""The patch's middle in pixel coordinates: pixel i covers [i - 0.5, i + 0.5]."""

CENTRE_HALF_WIDTH = 16.0
"""Half the side of the central square, which alone decides the label."""

LARGEST_REACH = 18
"""The largest distance, in rows or in columns, from a nucleus' centre to a pixel that the nucleus changes."""

Array = np.ndarray[Any, np.dtype[Any]]

Nuclei = np.ndarray[Any, np.dtype[np.void]]
"""An array of dtype `NUCLEUS`."""

NUCLEUS = np.dtype(
    [
        ("row", np.float32),
        ("column", np.float32),
        ("radius", np.float32),  # of the circle of equal area, in pixels
        ("elongation", np.float32),  # long axis over short axis
        ("angle", np.float32),  # of the long axis, in radians
        ("lobes", np.complex64, (3,)),  # 3rd, 4th and 5th harmonic of the outline
        ("density", np.float32),  # of haematoxylin, in optical density
        ("clumping", np.float32),  # relative amplitude of the chromatin's texture
        ("rim", np.float32),  # relative darkness of the membrane
        ("edge", np.float32),  # width of the blurred outline, in pixels
        ("nucleoli", np.complex64, (2,)),  # places in units of the radius, in the nucleus' own axes
        ("nucleolus", np.float32),  # relative darkness of the nucleoli
        ("tumour", np.bool_),
    ]
)

_FIELD_HALF_WIDTH = 57.0  # a nucleus outside the patch may reach into the patch
_LYMPHOCYTE, _SPINDLE, _EPITHELIAL, _TUMOUR = range(4)

# For each kind of nucleus, the two ends of a uniform distribution.
_RADIUS = np.array([[3.0, 4.3], [3.0, 4.2], [4.3, 6.3], [6.6, 9.4]])
_ELONGATION = np.array([[1.0, 1.25], [2.2, 3.6], [1.05, 1.6], [1.05, 1.7]])
_LOBE = np.array([0.02, 0.03, 0.025, 0.085])
_DENSITY = np.array([[1.0, 1.5], [0.8, 1.3], [0.5, 1.1], [0.6, 1.25]])
_CLUMPING = np.array([[0.05, 0.2], [0.05, 0.2], [0.15, 0.4], [0.25, 0.6]])
_RIM = np.array([[0.0, 0.1], [0.0, 0.1], [0.1, 0.45], [0.1, 0.5]])
_NUCLEOLUS = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.4], [0.6, 1.3]])


def draw_surround(random: np.random.Generator) -> Nuclei:
    """Return the nuclei whose centres lie outside the central square: tumour nuclei and ordinary nuclei.

    Args:
        random: The source of randomness. It must not depend on the label.

    Returns:
        An array of dtype `NUCLEUS`, shape (nuclei,).
    """
    tumour_count = 0 if random.random() < 0.25 else 1 + int(random.poisson(3.0))
    tumours = _draw_kinds(random, np.full(3 * tumour_count, _TUMOUR))
    _place(random, tumours, _FIELD_HALF_WIDTH)
    # The margin of 4 pixels keeps tumour nuclei clear of the edge that decides the label.
    tumours = tumours[_distance_from_middle(tumours) > CENTRE_HALF_WIDTH + 4.0]
    tumours = _without_overlaps(tumours, np.empty(0, NUCLEUS), 1.0)[:tumour_count]

    ordinary = _draw_ordinary(random, np.exp(random.uniform(np.log(8.0), np.log(60.0))))
    _place(random, ordinary, _FIELD_HALF_WIDTH)
    if random.random() < 0.4:
        infiltrate = _draw_kinds(random, np.full(random.integers(5, 25), _LYMPHOCYTE))
        _place_cluster(random, infiltrate)
        ordinary = np.concatenate([ordinary, infiltrate])
    distance = _distance_from_middle(ordinary)
    ordinary = ordinary[(distance > CENTRE_HALF_WIDTH) & (distance <= _FIELD_HALF_WIDTH)]
    return _without_overlaps(ordinary, tumours, 0.8)


def draw_centre(random: np.random.Generator, label: int, surround: Nuclei) -> Nuclei:
    """Return the nuclei with centres in the central square: with label 1, tumour nuclei among them.

    Args:
        random: The source of randomness.
        label: 0 or 1.
        surround: The nuclei outside the central square, of dtype `NUCLEUS`. The new nuclei keep
            clear of them, unless there is no free place for a tumour nucleus.

    Returns:
        An array of dtype `NUCLEUS`, shape (nuclei,).
    """
    placed = surround
    if label:
        candidates = _draw_kinds(random, np.full(12, _TUMOUR))
        _place(random, candidates, CENTRE_HALF_WIDTH - 3.0)
        free = _without_overlaps(candidates, surround, 0.9)[len(surround) :]
        wanted = 1 if random.random() < 0.75 else 2
        # If no candidate is free, the first one overlaps the surroundings, as crowded nuclei do.
        chosen = free[:wanted] if len(free) else candidates[:1]
        placed = np.concatenate([surround, chosen])
        expected = random.uniform(0.0, 5.0)
    else:
        # More ordinary nuclei make up for the area that a tumour nucleus covers.
        expected = random.uniform(0.0, 12.0)
    ordinary = _draw_ordinary(random, expected)
    _place(random, ordinary, CENTRE_HALF_WIDTH)
    return _without_overlaps(ordinary, placed, 0.8)[len(surround) :]


def _draw_ordinary(random: np.random.Generator, expected: float) -> Nuclei:
    share = random.dirichlet([1.0, 0.6, 1.2])
    return _draw_kinds(random, random.choice(3, size=random.poisson(expected), p=share))


def _draw_kinds(random: np.random.Generator, kinds: Array) -> Nuclei:
    """Return nuclei of the given kinds, all at row 0 and column 0."""
    count = len(kinds)
    nuclei = np.zeros(count, NUCLEUS)
    uniform = random.random((count, 14), dtype=np.float32)

    def between(ends: Array, column: int) -> Array:
        low, high = ends[kinds, 0], ends[kinds, 1]
        return low + (high - low) * uniform[:, column]

    nuclei["radius"] = between(_RADIUS, 0)
    nuclei["elongation"] = between(_ELONGATION, 1)
    nuclei["density"] = between(_DENSITY, 2)
    nuclei["clumping"] = between(_CLUMPING, 3)
    nuclei["rim"] = between(_RIM, 4)
    nuclei["nucleolus"] = between(_NUCLEOLUS, 5)
    nuclei["edge"] = 1.4 + 2.2 * uniform[:, 6] ** 2
    nuclei["angle"] = 2 * np.pi * uniform[:, 7]
    size = _LOBE[kinds, None] * (0.4 + 1.2 * uniform[:, 8:9])
    nuclei["lobes"] = size * np.exp(2j * np.pi * uniform[:, 9:12]) * np.array([1.0, 0.7, 0.5])
    nuclei["nucleoli"] = 0.4 * np.sqrt(uniform[:, 12:14]) * np.exp(2j * np.pi * uniform[:, 13:11:-1])
    nuclei["tumour"] = kinds == _TUMOUR
    return nuclei


def _place(random: np.random.Generator, nuclei: Nuclei, half_width: float) -> None:
    """Put the nuclei, in place, uniformly on the square of the given half width about the middle."""
    places = random.uniform(-half_width, half_width, size=(2, len(nuclei)))
    nuclei["row"], nuclei["column"] = MIDDLE + places


def _place_cluster(random: np.random.Generator, nuclei: Nuclei) -> None:
    """Put the nuclei, in place, about one point that is uniform on the patch."""
    point = random.uniform(-48.0, 48.0, size=(2, 1))
    nuclei["row"], nuclei["column"] = MIDDLE + point + random.normal(0.0, 13.0, size=(2, len(nuclei)))


def _distance_from_middle(nuclei: Nuclei) -> Array:
    return np.maximum(abs(nuclei["row"] - MIDDLE), abs(nuclei["column"] - MIDDLE))


def _without_overlaps(
    candidates: Nuclei,
    fixed: Nuclei,
    clearance: float,
) -> Nuclei:
    """Return the fixed nuclei, and each candidate that keeps its distance from all nuclei kept before it.

    The least distance of two nuclei is `clearance` times the sum of their radii.
    """
    nuclei = np.concatenate([fixed, candidates])
    place = nuclei["row"] + 1j * nuclei["column"]
    radius = nuclei["radius"]
    # [nuclei, nuclei]: whether two of them are too near each other
    near = abs(place[:, None] - place[None, :]) < clearance * (radius[:, None] + radius[None, :])
    kept = np.zeros(len(nuclei), np.bool_)
    kept[: len(fixed)] = True
    for index in range(len(fixed), len(nuclei)):
        kept[index] = not (near[index] & kept).any()
    return nuclei[kept]
