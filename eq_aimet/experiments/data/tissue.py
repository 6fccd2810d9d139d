"""Synthetic patches of stained tissue: optical densities, turned into colours by Beer and Lambert's law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eq_aimet.experiments.data.nuclei import LARGEST_REACH, Nuclei, draw_centre, draw_surround

__all__ = ["SIDE", "SyntheticPatch", "synthetic_patch"]

SIDE = 96

Floats = np.ndarray[Any, np.dtype[np.float32]]

# Optical density per unit of stain in (red, green, blue): Macenko et al., "A method for normalizing histology
# slides for quantitative analysis", 2009, section 2.
_HAEMATOXYLIN = np.array([0.5626, 0.7201, 0.4062], np.float32)
_EOSIN = np.array([0.2159, 0.8012, 0.5581], np.float32)

# [96, 49]: vertical and horizontal frequencies of the Fourier transform, in cycles per pixel
_V, _U = np.meshgrid(
    np.fft.fftfreq(SIDE).astype(np.float32), np.fft.rfftfreq(SIDE).astype(np.float32), indexing="ij"
)
_REACHES = (8, 12, LARGEST_REACH)  # a small nucleus is drawn on a small window, which takes less time


@dataclass(frozen=True)
class SyntheticPatch:
    """One synthetic patch with its label and its nuclei.

    Attributes:
        image: The colours, uint8, shape (96, 96, 3).
        label: 1 if a tumour nucleus has its centre in the central 32x32 pixels, else 0.
        nuclei: All nuclei, in pixel coordinates, an array of dtype `nuclei.NUCLEUS`.
    """

    image: np.ndarray[Any, np.dtype[np.uint8]]
    label: int
    nuclei: Nuclei


def synthetic_patch(seed: int, split: int, index: int, *, label: int | None = None) -> SyntheticPatch:
    """Return the synthetic patch of a seed, split and index; the same arguments give the same patch.

    The tissue outside the central square does not depend on the label. So another `label` changes only the
    central square and the pixels up to `eq_aimet.experiments.data.nuclei.LARGEST_REACH` from it.

    Args:
        seed: The seed of the whole data set, not negative.
        split: The split's number, not negative.
        index: The patch's place in its split, not negative.
        label: The class of the patch, 0 or 1. By default the data set chooses: of patches 2i and 2i + 1, one
            has label 0 and the other label 1.

    Returns:
        The patch, its label and its nuclei.

    Example:
        >>> patch = synthetic_patch(seed=0, split=0, index=3)
        >>> patch.image.shape, patch.image.dtype
        ((96, 96, 3), dtype('uint8'))
        >>> sorted(synthetic_patch(0, 0, index).label for index in (6, 7))
        [0, 1]
    """
    if label is None:
        pair = np.random.SeedSequence(seed, spawn_key=(split, index // 2, 2))
        label = int(pair.generate_state(1)[0] + index) % 2
    surround_random = _generator(seed, split, index, 0)
    centre_random = _generator(seed, split, index, 1)
    surround = draw_surround(surround_random)
    nuclei = np.concatenate([surround, draw_centre(centre_random, label, surround)])
    return SyntheticPatch(_render(surround_random, nuclei), label, nuclei)


def _generator(seed: int, split: int, index: int, purpose: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(split, index, purpose))
    return np.random.Generator(np.random.SFC64(sequence))


def _render(random: np.random.Generator, nuclei: Nuclei) -> Any:
    """Return the colours, uint8, shape (96, 96, 3); the draws don't depend on the nuclei."""
    smooth, fibres, grain = _textures(random)
    # [96, 96]: the share of each pixel that nuclei cover, and the haematoxylin of the nuclei
    cover, nuclear = _nuclear_density(nuclei, grain)

    looseness = random.uniform(-3.2, 0.8)  # tears and lumina are where the smooth texture is lower
    tissue = 1.0 / (1.0 + np.exp(-4.0 * (smooth - looseness + 0.35 * fibres)))
    contrast = random.uniform(0.08, 0.3)
    eosin = random.uniform(0.25, 0.65) * tissue * np.exp(contrast * fibres + 0.15 * smooth + 0.06 * grain)
    eosin *= 1.0 - 0.35 * cover
    pale = random.uniform(0.03, 0.2) * tissue * (1.0 + 0.25 * fibres)  # haematoxylin outside the nuclei
    haematoxylin = random.uniform(0.75, 1.2) * nuclear + pale

    stains = np.stack([_HAEMATOXYLIN, _EOSIN]) * random.uniform(0.88, 1.12, size=(2, 3)).astype(np.float32)
    # [96 * 96, 2] @ [2, 3] -> [96, 96, 3]
    amounts = np.stack([haematoxylin, eosin], axis=-1).reshape(-1, 2).astype(np.float32)
    density = (amounts @ stains).reshape(SIDE, SIDE, 3)
    white = random.uniform(228.0, 246.0)
    colours = white * np.exp(-density)
    colours += 2.0 * random.standard_normal(colours.shape, dtype=np.float32)
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def _textures(random: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Return smooth, fibrous and granular noise of unit variance, each float32, shape (96, 96)."""
    angle = random.uniform(0.0, np.pi)
    along = _U * np.cos(angle) + _V * np.sin(angle)
    across = _V * np.cos(angle) - _U * np.sin(angle)
    squared = _U**2 + _V**2
    length, width = random.uniform(4.0, 14.0), random.uniform(1.2, 2.4)
    filters = np.stack(
        [
            np.exp(-2 * (np.pi * 9.0) ** 2 * squared),
            np.exp(-2 * np.pi**2 * ((length * along) ** 2 + (width * across) ** 2)),
            np.exp(-2 * (np.pi * 1.0) ** 2 * squared),
        ]
    )
    filters[:, 0, 0] = 0.0
    white = random.standard_normal((3, SIDE, SIDE), dtype=np.float32)
    fields = np.fft.irfft2(np.fft.rfft2(white) * filters, s=(SIDE, SIDE)).astype(np.float32)
    fields /= fields.std(axis=(1, 2), keepdims=True)
    return fields[0], fields[1], fields[2]


def _nuclear_density(nuclei: Nuclei, grain: Floats) -> tuple[Floats, Floats]:
    """Return the share of each pixel that nuclei cover, and the nuclei's haematoxylin, each (96, 96)."""
    # A nucleus lies up to about ten pixels outside the patch. With this margin no window needs clipping.
    margin = 2 * LARGEST_REACH + 1
    cover = np.zeros((SIDE + 2 * margin, SIDE + 2 * margin), np.float32)
    density = np.zeros_like(cover)
    padded_grain = np.pad(grain, margin, mode="wrap")
    needed = nuclei["radius"] * np.sqrt(nuclei["elongation"]) * (1.0 + abs(nuclei["lobes"]).sum(axis=1))
    size_class = np.searchsorted(_REACHES[:-1], needed + nuclei["edge"] / 2 + 0.5)
    for number, reach in enumerate(_REACHES):
        chosen = nuclei[size_class == number]
        if not len(chosen):
            continue
        top = np.rint(chosen["row"]).astype(int) - reach
        left = np.rint(chosen["column"]).astype(int) - reach
        offsets = np.arange(2 * reach + 1)
        rows, columns = top[:, None] + offsets, left[:, None] + offsets  # [nuclei, window]
        local_grain = padded_grain[rows[:, :, None] + margin, columns[:, None, :] + margin]
        windows = _nucleus_windows(chosen, rows, columns, local_grain)
        for row, column, mask, dark in zip(top + margin, left + margin, *windows, strict=True):
            window = slice(row, row + 2 * reach + 1), slice(column, column + 2 * reach + 1)
            np.maximum(cover[window], mask, out=cover[window])
            below = density[window]
            density[window] = np.maximum(below, dark) + 0.3 * np.minimum(below, dark)
    inner = slice(margin, margin + SIDE)
    return cover[inner, inner], density[inner, inner]


def _nucleus_windows(
    nuclei: Nuclei,
    rows: np.ndarray[Any, np.dtype[Any]],
    columns: np.ndarray[Any, np.dtype[Any]],
    grain: Floats,
) -> tuple[Floats, Floats]:
    """Return the cover and the haematoxylin of each nucleus on its window, (nuclei, window, window)."""
    # [nuclei, window, window]: places in the nucleus' own axes, where its ellipse is the unit circle
    across = (columns - nuclei["column"][:, None])[:, None, :]
    down = (rows - nuclei["row"][:, None])[:, :, None]

    def each(field: str) -> Floats:
        return nuclei[field][:, None, None]

    cosine, sine, stretch = np.cos(each("angle")), np.sin(each("angle")), np.sqrt(each("elongation"))
    place = np.empty(grain.shape, np.complex64)
    place.real = (across * cosine + down * sine) / (stretch * each("radius"))
    place.imag = (down * cosine - across * sine) * (stretch / each("radius"))
    distance = abs(place)
    direction = place / np.maximum(distance, 1e-6)
    cubed = direction * direction * direction
    lobes = nuclei["lobes"][:, :, None, None]
    outline = 1.0 + (cubed * (lobes[:, 0] + direction * (lobes[:, 1] + direction * lobes[:, 2]))).real
    depth = each("radius") * (outline - distance) / stretch  # in pixels, about; positive inside the outline
    mask = np.clip(0.5 + depth / each("edge"), 0.0, 1.0)
    mask *= mask * (3.0 - 2.0 * mask)
    membrane = np.maximum(0.0, 1.0 - abs(depth - 0.6) / 1.2)
    relative = 1.0 + each("clumping") * grain + each("rim") * membrane
    if nuclei["nucleolus"].any():
        for spot in range(2):
            apart = place - nuclei["nucleoli"][:, spot, None, None]
            squared = apart.real**2 + apart.imag**2
            relative += each("nucleolus") * np.maximum(0.0, 1.0 - squared / 0.4**2) ** 3
    return mask, mask * np.maximum(relative, 0.2) * each("density")
