"""Tagging layers with blocks, and the actions that fit them."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry import Action, LayerBlocks, regular_actions, tag_blocks
from eq_aimet.symmetry.blocks import is_blockwise_depthwise, stored_blocks
from eq_aimet.symmetry.layers import channel_counts

block_lists = st.integers(2, 9).flatmap(
    lambda order: st.tuples(st.just(order), st.lists(st.sampled_from([1, order]), min_size=1, max_size=5))
)


def test_a_tag_can_be_taken_back():
    layer = torch.nn.Conv2d(8, 4, 1)
    outer = tag_blocks(layer, 4)
    first = stored_blocks(layer)
    assert first == LayerBlocks((4, 4), (4,))
    inner = tag_blocks(layer, [4, 2, 2], [1, 3])
    assert stored_blocks(layer) == LayerBlocks((4, 2, 2), (1, 3))
    inner.remove()
    assert stored_blocks(layer) is first
    outer.remove()
    assert stored_blocks(layer) is None
    outer.remove()
    assert stored_blocks(layer) is None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_blocks_survive_copies(duplicate):
    layer = torch.nn.Conv2d(1, 4, 3)
    tag_blocks(layer, [1], [4], actions=regular_actions([1], [4], order=4, kernel_size=3))
    wrapped = duplicate(torch.nn.Sequential(layer))
    assert stored_blocks(wrapped[0]) == stored_blocks(layer)


@pytest.mark.parametrize(
    ("layer", "counts"),
    [
        (torch.nn.Conv1d(2, 6, 3), (2, 6)),
        (torch.nn.ConvTranspose2d(2, 6, 3), (2, 6)),
        (torch.nn.Linear(2, 6), (2, 6)),
        (torch.nn.BatchNorm2d(6), (6, 6)),
        (torch.nn.ReLU(), None),
    ],
)
def test_channel_counts(layer, counts):
    assert channel_counts(layer) == counts


@pytest.mark.parametrize(
    ("blocks_in", "blocks_out", "text"),
    [
        (
            3,
            4,
            r"`blocks_in`: received blocks of 3; expected positive block sizes that add up to .* 8 channels",
        ),
        (4, 0, "`blocks_out`: received blocks of 0"),
        ([4, 3], 4, r"`blocks_in`: received 1×4 \+ 1×3, together 7 channels"),
        (4, [8, -4], "`blocks_out`"),
    ],
)
def test_blocks_that_do_not_fit_are_named(blocks_in, blocks_out, text):
    layer = torch.nn.Conv2d(8, 4, 1)
    with pytest.raises(InvalidArgumentError, match=text):
        tag_blocks(layer, blocks_in, blocks_out)
    assert stored_blocks(layer) is None


def test_layers_without_channels_and_foreign_actions_are_refused():
    with pytest.raises(InvalidArgumentError, match="`layer`: received ReLU"):
        tag_blocks(torch.nn.ReLU(), 4)
    with pytest.raises(InvalidArgumentError, match="`actions`: received a permutation_out of length 4"):
        tag_blocks(torch.nn.Conv2d(2, 4, 1), 1, 4, actions=[Action((1, 0), (0, 0, 1, 2))])


@pytest.mark.parametrize(
    ("groups", "blocks", "expected"),
    [(2, 4, True), (8, 4, False), (8, 1, False), (4, 4, False), (1, 8, False)],
)
def test_blockwise_depthwise_layers_are_told_apart(groups, blocks, expected):
    layer = torch.nn.Conv2d(8, 8, 3, groups=groups)
    assert not is_blockwise_depthwise(layer, None)
    tag_blocks(layer, blocks)
    assert is_blockwise_depthwise(layer, stored_blocks(layer)) is expected


@given(block_lists)
def test_the_generator_of_a_pointwise_layer_has_the_order_of_the_group(case):
    order, blocks = case
    (action,) = regular_actions(blocks, [order], order=order)
    channels = sum(blocks)
    place = list(range(channels))
    returns = []
    for power in range(1, order + 1):
        place = [action.permutation_in[channel] for channel in place]
        if place == list(range(channels)):
            returns.append(power)
    assert returns == ([order] if order in blocks else list(range(1, order + 1)))
    block_of = [index for index, size in enumerate(blocks) for _ in range(size)]
    assert all(block_of[channel] == block_of[image] for channel, image in enumerate(action.permutation_in))


@pytest.mark.parametrize(
    ("order", "turns", "shift"), [(2, 2, 1), (4, 1, 1), (6, 2, 3), (8, 1, 2), (12, 1, 3), (16, 1, 4)]
)
def test_a_kernel_turns_by_the_angle_that_its_channels_shift(order, turns, shift):
    (action,) = regular_actions([order], [1], order=order, kernel_size=3)
    assert action.turns == turns
    assert action.permutation_in[0] == shift
    assert shift * 360 / order == turns * 90


@pytest.mark.parametrize("order", [1, 3, 5])
def test_no_turn_of_a_kernel_is_exact_for_odd_orders(order):
    assert regular_actions([order], [order], order=order, kernel_size=3) == ()


def test_other_representations_are_refused():
    with pytest.raises(InvalidArgumentError, match="`blocks_out`: received 1×2; expected blocks of 1 or 4"):
        regular_actions([4], [2], order=4)
