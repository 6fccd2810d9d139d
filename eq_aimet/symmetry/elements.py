"""The turns and reflections of the plane: their action on images, and the exact elements of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from eq_aimet.symmetry.blocks import stored_blocks

__all__ = ["Element", "exact_elements"]


@dataclass(frozen=True)
class Element:
    """A turn of the plane by `angle` degrees, counter-clockwise, after mirroring the columns if `flip`.

    Example:
        >>> str(Element(90)), str(Element(90, flip=True)), str(Element(-45.0))
        ('90°', 'flip+90°', '315°')
    """

    angle: float
    flip: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "angle", float(self.angle) % 360.0)

    def __str__(self) -> str:
        if self.flip and self.angle == 0.0:
            return "flip"
        return f"{'flip+' if self.flip else ''}{self.angle:g}°"

    @property
    def is_exact(self) -> bool:
        """Whether the element maps a square grid onto itself, so that nothing is interpolated."""
        return self.angle % 90.0 == 0.0

    def turn(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mirrored and turned images, of the shape (…, H, H) of `images`.

        Multiples of 90° only move the pixels. Other angles interpolate bilinearly about the exact centre.
        """
        mirrored = images.flip(-1) if self.flip else images
        if self.is_exact:
            return torch.rot90(mirrored, int(self.angle // 90), dims=(-2, -1))
        radians = math.radians(self.angle)
        cosine, sine = math.cos(radians), math.sin(radians)
        # The matrix maps an output pixel (x, y) to its source pixel (x, y); y points down.
        inverse = images.new_tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
        planes = mirrored.reshape(1, -1, *images.shape[-2:])  # [1, all planes, H, H]
        grid = F.affine_grid(inverse[None], list(planes.shape), align_corners=False)
        turned = F.grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return turned.reshape(images.shape)


def exact_elements(model: torch.nn.Module) -> tuple[Element, ...]:
    """Return the quarter turns and reflections under which every tagged layer of `model` is symmetric.

    The identity is left out. So the result is empty if one layer is symmetric only under the identity, for
    example a 3×3 convolution between fields of C3 or C5. Layers with a 1×1 kernel and layers whose actions
    are unknown put no limit on the result. If no layer puts a limit, the result is the three quarter turns.

    Example:
        >>> [str(element) for element in exact_elements(torch.nn.Conv2d(1, 1, 3))]
        ['90°', '180°', '270°']
    """
    shared: set[tuple[int, bool]] | None = None
    for layer in model.modules():
        blocks = stored_blocks(layer)
        if blocks is None or not (blocks.actions or blocks.has_all_actions) or _is_pointwise(layer):
            continue
        elements = _generate({(action.turns % 4, action.flip) for action in blocks.actions})
        shared = elements if shared is None else shared & elements
    if shared is None:
        shared = _generate({(1, False)})
    ordered = sorted(shared - {(0, False)}, key=lambda element: (element[1], element[0]))
    return tuple(Element(90.0 * turns, flip) for turns, flip in ordered)


def _is_pointwise(layer: torch.nn.Module) -> bool:
    return set(getattr(layer, "kernel_size", (1,))) == {1}


def _generate(generators: set[tuple[int, bool]]) -> set[tuple[int, bool]]:
    """Return the group of (turns, flip) that the generators span, the identity included."""
    group = {(0, False)}
    while True:
        # After a mirroring, a turn changes its direction: r^a m^f · r^b = r^(a ± b) m^f.
        products = {
            ((turns + (-more if flip else more)) % 4, flip != flips)
            for turns, flip in group
            for more, flips in generators
        }
        if products <= group:
            return group
        group |= products
