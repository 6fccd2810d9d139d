"""Random turns and reflections of a square image: exact ones, and rotations by any angle."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["rotate", "rotate_and_flip", "turn", "turn_and_flip"]


def turn_and_flip(image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the image turned by a random multiple of 90° and, every other time, reflected.

    Each of the eight elements of D4 is equally likely. No pixel is interpolated.

    Args:
        image: Shape (channels, n, n); it is left as it is.
        generator: The source of randomness; by default torch's global one, which a `DataLoader` seeds
            differently in each of its workers.

    Returns:
        A new tensor of the image's shape.

    Raises:
        InvalidArgumentError: The image is not square or has another number of axes.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 2, 2)
        >>> turned = turn_and_flip(image, torch.Generator().manual_seed(0))
        >>> turned.shape, sorted(turned.flatten().tolist())
        (torch.Size([1, 2, 2]), [0.0, 1.0, 2.0, 3.0])
    """
    _check_square(image)
    element = int(torch.randint(8, (), generator=generator))
    turned = torch.rot90(image, element % 4, (1, 2))
    return turned.flip(2) if element >= 4 else turned


def turn(image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the image turned by a random multiple of 90°, without a reflection.

    It suits images whose reflection has another meaning, such as digits. It takes the arguments of
    `turn_and_flip` and raises the same errors.

    Example:
        >>> turned = turn(torch.arange(4.0).reshape(1, 2, 2), torch.Generator().manual_seed(0))
        >>> turned.shape
        torch.Size([1, 2, 2])
    """
    _check_square(image)
    return torch.rot90(image, int(torch.randint(4, (), generator=generator)), (1, 2))


def rotate_and_flip(image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the image rotated by a random angle, 0° to 360°, and, every other time, reflected.

    The rotation interpolates bilinearly. It fills the corners with 0 where the rotated image has no pixels.
    The networks of `eq_aimet.models` see only the inscribed circle, which the rotation fills completely.

    The function takes the arguments of `turn_and_flip` and raises the same errors.

    Example:
        >>> rotated = rotate_and_flip(torch.ones(3, 9, 9), torch.Generator().manual_seed(0))
        >>> rotated.shape, rotated[0, 4, 4]
        (torch.Size([3, 9, 9]), tensor(1.))
    """
    return rotate(turn_and_flip(image, generator), generator)


def rotate(image: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Return the image rotated by a random angle, 0° to 360°, without a reflection.

    It interpolates as `rotate_and_flip` does. It suits images whose reflection has another meaning, such as
    digits. It takes the arguments of `turn_and_flip` and raises the same errors.

    Example:
        >>> rotated = rotate(torch.ones(1, 9, 9), torch.Generator().manual_seed(0))
        >>> rotated.shape
        torch.Size([1, 9, 9])
    """
    from torchvision.transforms.v2 import InterpolationMode, functional  # takes a second to import

    _check_square(image)
    angle = 360 * float(torch.rand((), generator=generator))
    rotated: torch.Tensor = functional.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    return rotated


def _check_square(image: torch.Tensor) -> None:
    if image.ndim != 3 or image.shape[1] != image.shape[2]:
        raise InvalidArgumentError(
            "image",
            received=f"shape {tuple(image.shape)}",
            expected="shape (channels, n, n)",
            remedy="Give one square image at a time: a turn would change the shape of an oblong image.",
        )
