"""MobileNetV2's table of stages, and the plan of its layers for one width, block size and input size."""

from __future__ import annotations

from dataclasses import dataclass

from eq_aimet.arguments import check_integer, check_number
from eq_aimet.errors import InvalidArgumentError

__all__ = [
    "Architecture",
    "BlockPlan",
    "LARGEST_GROUP",
    "STAGES",
    "Stage",
    "WIDEST",
    "plan_architecture",
    "stride_two_padding",
]


@dataclass(frozen=True)
class Stage:
    """One line of table 2 of Sandler et al. 2018: `repeats` inverted residuals, the first with `stride`."""

    expansion: int
    channels: int
    repeats: int
    stride: int


STEM_CHANNELS = 32
# The strides of the 64- and the 160-channel stage are 1 instead of 2, because the input is small.
STAGES = (
    Stage(expansion=1, channels=16, repeats=1, stride=1),
    Stage(expansion=6, channels=24, repeats=2, stride=2),
    Stage(expansion=6, channels=32, repeats=3, stride=2),
    Stage(expansion=6, channels=64, repeats=4, stride=1),
    Stage(expansion=6, channels=96, repeats=3, stride=1),
    Stage(expansion=6, channels=160, repeats=3, stride=1),
    Stage(expansion=6, channels=320, repeats=1, stride=1),
)
HEAD_CHANNELS = 1280
# On a final grid of one pixel, the 3×3 filters of the last stages would see only padding around the pixel.
SMALLEST_FINAL_GRID = 3
# MobileNetV2 has 570 million weights at this width; a wider one hardly fits in memory.
WIDEST = 16
LARGEST_GROUP = 64  # a 3×3 filter distinguishes at most 8 angles


@dataclass(frozen=True)
class BlockPlan:
    """The channels of one inverted residual, and the stride and padding of its depthwise convolution."""

    in_channels: int
    hidden_channels: int
    out_channels: int
    stride: int
    padding: int

    @property
    def expands(self) -> bool:
        """Whether a 1×1 convolution precedes the depthwise convolution."""
        return self.hidden_channels != self.in_channels

    @property
    def is_residual(self) -> bool:
        """Whether the block's input is added to its output."""
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Architecture:
    """The channels of all layers of a MobileNetV2, and the sizes of its input and final grids."""

    input_size: int
    stem_channels: int
    stem_padding: int
    blocks: tuple[BlockPlan, ...]
    head_channels: int
    final_size: int


def plan_architecture(*, width: float, divisor: int, input_size: int) -> Architecture:
    """Return the channels, strides, paddings and grids of a MobileNetV2.

    Args:
        width: The width multiplier. As in the paper, a multiplier below 1 does not shrink the head.
        divisor: The size of a block; each channel count is a multiple of it.
        input_size: The side of the square input in pixels, odd.

    Raises:
        InvalidArgumentError: If a layer would have fewer channels than one block, if `input_size` is even,
            or if the final grid would be too small.

    Example:
        >>> plan = plan_architecture(width=1.0, divisor=8, input_size=95)
        >>> plan.stem_channels, [block.out_channels for block in plan.blocks][-3:], plan.final_size
        (32, [160, 160, 320], 11)
    """
    check_integer("input_size", input_size, remedy="Give the side of the images in pixels, for example 95.")
    _check_width(width, divisor)
    _check_input_size(input_size)
    channels = stem_channels = _round_to_blocks(STEM_CHANNELS * width, divisor)
    stem_padding = stride_two_padding(input_size)
    grid = _shrink(input_size)
    blocks = []
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            out_channels = _round_to_blocks(stage.channels * width, divisor)
            padding = 1 if stride == 1 else stride_two_padding(grid)
            blocks.append(BlockPlan(channels, stage.expansion * channels, out_channels, stride, padding))
            channels = out_channels
            grid = grid if stride == 1 else _shrink(grid)
    head_channels = _round_to_blocks(HEAD_CHANNELS * max(1.0, width), divisor)
    return Architecture(input_size, stem_channels, stem_padding, tuple(blocks), head_channels, grid)


def stride_two_padding(size: int) -> int:
    """Return the padding with which a stride-2, 3×3 convolution keeps an odd grid odd and centred.

    Args:
        size: The side of the input grid in pixels, odd.

    Example:
        >>> stride_two_padding(45), stride_two_padding(95)  # to 23 and to 47
        (1, 0)
    """
    return (size + 1) // 2 % 2


def _shrink(size: int) -> int:
    """Return the grid after a stride-2, 3×3 convolution."""
    return (size + 2 * stride_two_padding(size) - 3) // 2 + 1


def _round_to_blocks(channels: float, divisor: int) -> int:
    """Return the nearest multiple of `divisor`, or the next one if the nearest removes over a tenth.

    MobileNetV2 rounds its channel counts this way.
    """
    nearest = int(channels + divisor / 2) // divisor * divisor
    return nearest if nearest >= 0.9 * channels else nearest + divisor


def _check_width(width: float, divisor: int) -> None:
    narrowest = min(STEM_CHANNELS, *(stage.channels for stage in STAGES))
    check_number("width", width, most=WIDEST, remedy="Try 1, the full network.")
    if narrowest * width < divisor:
        raise InvalidArgumentError(
            "width",
            received=width,
            expected=f"at least {divisor / narrowest:g}, at which the narrowest layer is one block "
            f"of {divisor} channels",
            remedy="Widen the network or take a smaller block.",
        )


def _check_input_size(input_size: int) -> None:
    if input_size % 2 == 0:
        raise InvalidArgumentError(
            "input_size",
            received=input_size,
            expected="an odd number: a stride-2 3×3 convolution on an even grid samples off-centre and "
            "breaks equivariance",
            remedy=f"Crop the input by one pixel, to {input_size - 1}.",
        )
    smallest = next(size for size in range(1, 1000, 2) if _final_grid(size) >= SMALLEST_FINAL_GRID)
    if input_size < smallest:
        raise InvalidArgumentError(
            "input_size",
            received=input_size,
            expected=f"at least {smallest}, which leaves a final grid of {SMALLEST_FINAL_GRID}",
            remedy=f"Pad or resize the input to {smallest} or more.",
        )


def _final_grid(size: int) -> int:
    size = _shrink(size)
    for stage in STAGES:
        size = size if stage.stride == 1 else _shrink(size)
    return size
