"""The laws of block ranges and scales."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eq_aimet.symmetry.scaling import block_ranges, join_blocks, pair_scales, triplet_scales

positive = st.floats(1e-6, 1e6)
sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(tuple)


def ends(blocks):
    return set(np.cumsum(blocks).tolist())


@given(st.lists(positive, min_size=1, max_size=8), st.data())
def test_a_pair_meets_at_the_geometric_mean(source, data):
    first = np.array(source)
    second = np.array(data.draw(st.lists(positive, min_size=len(source), max_size=len(source))))
    scales = pair_scales(first, second)
    np.testing.assert_allclose(first / scales, second * scales, rtol=1e-9)
    np.testing.assert_allclose(first / scales, np.sqrt(first) * np.sqrt(second), rtol=1e-9)


@given(positive, positive, positive)
def test_a_triplet_meets_at_one_range(first, second, third):
    before, after = triplet_scales(np.array([first]), np.array([second]), np.array([third]))
    met = [first / before[0], second * before[0] / after[0], third * after[0]]
    np.testing.assert_allclose(met, np.cbrt(first) * np.cbrt(second) * np.cbrt(third), rtol=1e-9)


@pytest.mark.parametrize("dead", [0, 1])
def test_dead_channels_of_a_pair_stay(dead):
    ranges = [np.array([2.0, 8.0]), np.array([2.0, 2.0])]
    ranges[dead][0] = 0.0
    assert pair_scales(*ranges).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_dead_channels_of_a_triplet_stay(dead):
    ranges = [np.array([1.0, 8.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0])]
    ranges[dead][0] = 0.0
    before, after = triplet_scales(*ranges)
    np.testing.assert_allclose(before, [1.0, 4.0])
    np.testing.assert_allclose(after, [1.0, 2.0])


@given(sizes, st.randoms())
def test_the_range_of_a_block_bounds_its_channels_and_is_reached(blocks, random):
    values = np.array([random.uniform(0, 9) for _ in range(sum(blocks))])
    ranges, start = block_ranges(values, blocks), 0
    for size in blocks:
        part = slice(start, start + size)
        assert len(set(ranges[part])) == 1
        assert (values[part] <= ranges[part]).all()
        assert ranges[start] in values[part]
        start += size


@given(sizes, st.sets(st.integers(1, 40)))
def test_joined_blocks_end_where_all_partitions_end(blocks, cuts):
    channels = sum(blocks)
    other = tuple(int(n) for n in np.diff([0, *sorted(cut for cut in cuts if cut < channels), channels]))
    joined = join_blocks(blocks, other)
    assert joined == join_blocks(other, blocks)
    assert ends(joined) == ends(blocks) & ends(other)
    assert join_blocks(blocks, blocks, None) == blocks
    assert join_blocks(blocks, (1,) * channels) == blocks
    assert join_blocks(joined, blocks) == joined


def test_partitions_of_different_channels_can_not_be_joined():
    assert join_blocks(None, None) is None
    with pytest.raises(ValueError, match=r"\[4, 5\] channels"):
        join_blocks((4,), (5,))
