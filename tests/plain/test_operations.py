"""The plain modules of an exported model."""

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain import Add, GroupMaxPool, Mask


def test_add_adds():
    assert Add()(torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])).tolist() == [4.0, 0.0]


def test_mask_multiplies_by_a_copy_that_travels_with_the_module():
    values = torch.tensor([[[[1.0, 0.0], [0.5, 1.0]]]])
    mask = Mask(values)
    values.zero_()
    assert mask(torch.full((1, 1, 2, 2), 4.0)).tolist() == [[[[4.0, 0.0], [2.0, 4.0]]]]
    assert list(mask.state_dict()) == ["mask"]
    assert mask.double().mask.dtype == torch.float64
    assert not list(mask.parameters())


@pytest.mark.parametrize("blocks", [(4, 4), (3, 1, 4), (1,) * 8, (8,)])
@pytest.mark.parametrize("trailing", [(), (3, 5)])
def test_group_pooling_takes_the_largest_of_each_block(blocks, trailing):
    x = torch.randn(2, 8, *trailing)
    pooled = GroupMaxPool(blocks)(x)
    assert pooled.shape == (2, len(blocks), *trailing)
    start = 0
    for index, size in enumerate(blocks):
        block = x[:, start : start + size]
        assert (pooled[:, index : index + 1] >= block).all()
        assert (pooled[:, index : index + 1] == block).any(1).all()
        start += size


def test_group_pooling_names_its_blocks():
    assert repr(GroupMaxPool([4, 4, 1])) == "GroupMaxPool(3 blocks, 9 channels)"
    for blocks in ((), (4, 0)):
        with pytest.raises(
            InvalidArgumentError, match=r"`blocks`: received .*expected one positive size per block"
        ):
            GroupMaxPool(blocks)
