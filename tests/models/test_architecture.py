"""The numbers that follow from MobileNetV2's table."""

from __future__ import annotations

import pytest

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models.architecture import plan_architecture, stride_two_padding

# Sandler et al. 2018, table 2, as torchvision's mobilenet_v2 builds it.
PAPER_OUT = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
PAPER_HIDDEN = [32, 96, 144, 144, 192, 192, 192, 384, 384, 384, 384, 576, 576, 576, 960, 960, 960]


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_width_one_has_the_papers_channels(divisor):
    plan = plan_architecture(width=1.0, divisor=divisor, input_size=95)
    assert plan.stem_channels == 32
    assert [block.out_channels for block in plan.blocks] == PAPER_OUT
    assert [block.hidden_channels for block in plan.blocks] == PAPER_HIDDEN
    assert plan.head_channels == 1280
    assert [block.expands for block in plan.blocks] == [False] + 16 * [True]
    assert [index for index, block in enumerate(plan.blocks) if block.stride == 2] == [1, 3]
    assert [index for index, block in enumerate(plan.blocks) if block.is_residual] == [
        2, 4, 5, 7, 8, 9, 11, 12, 14, 15,
    ]  # fmt: skip


@pytest.mark.parametrize("divisor", range(1, 17))
@pytest.mark.parametrize("width", [1.0, 1.3, 2.0])
def test_channels_are_whole_blocks_near_the_wanted_number(width, divisor):
    plan = plan_architecture(width=width, divisor=divisor, input_size=33)
    wanted = [32 * width, *(channels * width for channels in PAPER_OUT), 1280 * width]
    found = [plan.stem_channels, *(block.out_channels for block in plan.blocks), plan.head_channels]
    for want, got in zip(wanted, found, strict=True):
        assert got % divisor == 0
        assert 0.9 * want <= got <= want + divisor


def test_the_head_keeps_its_channels_in_narrow_networks():
    plan = plan_architecture(width=0.5, divisor=8, input_size=95)
    assert (plan.stem_channels, plan.blocks[-1].out_channels, plan.head_channels) == (16, 160, 1280)


@pytest.mark.parametrize("size", range(17, 260, 2))
def test_grids_stay_odd_and_centred(size):
    plan = plan_architecture(width=1.0, divisor=8, input_size=size)
    grid = size
    steps = [(2, plan.stem_padding), *((block.stride, block.padding) for block in plan.blocks)]
    for stride, padding in steps:
        after = (grid + 2 * padding - 3) // stride + 1
        first = 1 - padding  # where the first filter's centre lies
        last = first + stride * (after - 1)
        assert first + last == grid - 1
        assert after % 2 == 1
        grid = after
    assert grid == plan.final_size >= 3


def test_grid_of_the_default_input():
    plan = plan_architecture(width=1.0, divisor=8, input_size=95)
    assert (plan.stem_padding, plan.blocks[1].padding, plan.blocks[3].padding, plan.final_size) == (
        0,
        0,
        0,
        11,
    )


@pytest.mark.parametrize(("size", "padding"), [(5, 1), (7, 0), (45, 1), (47, 0), (89, 1), (95, 0)])
def test_padding(size, padding):
    assert stride_two_padding(size) == padding


def test_an_even_input_is_refused_with_reason_and_remedy():
    with pytest.raises(InvalidArgumentError) as raised:
        plan_architecture(width=1.0, divisor=8, input_size=96)
    assert str(raised.value) == (
        "`input_size`: received 96; expected an odd number: a stride-2 3×3 convolution on an even grid "
        "samples off-centre and breaks equivariance. Crop the input by one pixel, to 95."
    )


@pytest.mark.parametrize("size", [1, 3, 15])
def test_a_small_input_is_refused(size):
    with pytest.raises(InvalidArgumentError) as raised:
        plan_architecture(width=1.0, divisor=8, input_size=size)
    assert str(raised.value) == (
        f"`input_size`: received {size}; expected at least 17, which leaves a final grid of 3. "
        "Pad or resize the input to 17 or more."
    )


def test_a_width_without_a_whole_block_is_refused_with_the_smallest_that_works():
    with pytest.raises(InvalidArgumentError) as raised:
        plan_architecture(width=0.01, divisor=8, input_size=95)
    assert str(raised.value) == (
        "`width`: received 0.01; expected at least 0.5, at which the narrowest layer is one block of 8 "
        "channels. Widen the network or take a smaller block."
    )
    plan = plan_architecture(width=0.5, divisor=8, input_size=95)
    assert min(block.out_channels for block in plan.blocks) == 8


@pytest.mark.parametrize("size", [-1, 0, 95.0])
def test_an_input_size_that_is_no_number_of_pixels_is_refused(size):
    with pytest.raises(InvalidArgumentError, match="Give the side of the images in pixels, for example 95"):
        plan_architecture(width=1.0, divisor=8, input_size=size)


def test_a_width_that_is_no_number_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"`width`: received nan; expected a number above 0"):
        plan_architecture(width=float("nan"), divisor=8, input_size=95)
