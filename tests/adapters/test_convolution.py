"""The channel-wise depthwise convolution: its filter, its equivariance, its modes, its export."""

from __future__ import annotations

import copy

import pytest
import torch

from eq_aimet.adapters.e2cnn import ChannelwiseR2Conv, enn, gspaces
from eq_aimet.errors import InvalidArgumentError


def _regular(order, fields):
    gspace = gspaces.Rot2dOnR2(order) if order > 1 else gspaces.TrivialOnR2()
    return enn.FieldType(gspace, fields * [gspace.regular_repr])


def _turn(x, order, quarters):
    """Regular fields (B, F·N, S, S) turned by quarters: the grid, and the channels of each block."""
    blocks = x.unflatten(1, (-1, order)).roll(quarters * order // 4, 2)
    return blocks.flatten(1, 2).rot90(quarters, (2, 3))


@pytest.mark.parametrize(
    "options", [{"padding": 1}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"bias": False}]
)
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("order", [4, 8])
def test_quarter_turns_are_exact_in_float64(order, size, options):
    torch.manual_seed(order + size)
    in_type = _regular(order, 3)
    conv = ChannelwiseR2Conv(in_type, size, **options).double()
    if conv.bias is not None:
        torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, in_type.size, 11, 11, dtype=torch.float64)

    def convolve(x):
        return conv(enn.GeometricTensor(x, in_type)).tensor

    expected = convolve(x)
    assert expected.std() > 0.1
    for quarters in (1, 2, 3):
        assert (convolve(_turn(x, order, quarters)) - _turn(expected, order, quarters)).abs().max() <= 1e-12
    # the turned input alone must give something else
    assert (convolve(x.rot90(1, (2, 3))) - expected.rot90(1, (2, 3))).abs().max() > 1e-3 or size == 1


def test_a_turn_of_the_helper_is_e2cnns():
    in_type = _regular(8, 2)
    x = torch.randn(1, in_type.size, 5, 5)
    expected = enn.GeometricTensor(x, in_type).transform(2).tensor  # element 2 of C8 is a quarter
    assert torch.allclose(_turn(x, 8, 1), expected, atol=1e-6)


def test_channel_g_of_c4_holds_the_filter_turned_g_times():
    conv = ChannelwiseR2Conv(_regular(4, 5), 3)
    weight, _ = conv.expand_parameters()
    assert weight.shape == (20, 1, 3, 3)
    blocks = weight.unflatten(0, (5, 4))  # [field, rotation, 1, 3, 3]
    for g in range(4):
        assert torch.equal(blocks[:, g], blocks[:, 0].rot90(g, (2, 3)))


def test_channels_do_not_mix():
    conv = ChannelwiseR2Conv(_regular(4, 2), 3, bias=False)
    x = torch.zeros(1, 8, 5, 5)
    x[:, 3] = torch.randn(5, 5)
    out = conv(enn.GeometricTensor(x, conv.in_type)).tensor
    assert out[:, 3].abs().max() > 0
    out[:, 3] = 0
    assert not out.any()


def test_it_has_one_lifting_filter_per_field():
    conv = ChannelwiseR2Conv(_regular(8, 6), 3)
    scalar = enn.FieldType(conv.in_type.gspace, [conv.in_type.gspace.trivial_repr])
    assert conv.weights.shape == enn.R2Conv(scalar, conv.in_type, 3).weights.shape
    assert (conv.in_type, conv.out_type, conv.groups) == (conv.in_type, conv.in_type, 48)


def test_training_reaches_the_weights_and_eval_keeps_the_filter():
    torch.manual_seed(0)
    conv = ChannelwiseR2Conv(_regular(4, 2), 3, padding=1)
    x = enn.GeometricTensor(torch.randn(1, 8, 5, 5), conv.in_type)
    conv(x).tensor.square().sum().backward()
    assert conv.weights.grad.abs().min() > 0
    with torch.no_grad():
        conv.weights.sub_(0.1 * conv.weights.grad)
    trained = conv(x).tensor
    conv.eval()
    assert torch.equal(conv(x).tensor, trained)
    assert conv.filter.shape == (8, 1, 3, 3)
    assert not hasattr(conv.train(), "filter")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options", [{"padding": 1, "stride": 2}, {"bias": False}, {"padding": 2, "dilation": 2}]
)
def test_export_is_a_clone_that_leaves_the_source_alone(training, options):
    torch.manual_seed(0)
    conv = ChannelwiseR2Conv(_regular(4, 2), 3, **options)
    if conv.bias is not None:
        torch.nn.init.normal_(conv.bias)
    conv.train(training)
    x = torch.randn(1, 8, 7, 7)
    before = conv(enn.GeometricTensor(x, conv.in_type)).tensor.detach()
    keys = set(conv.state_dict())
    plain = conv.export()
    assert type(plain) is torch.nn.Conv2d
    assert plain.groups == 8
    assert not plain.training
    assert conv.training is training
    assert set(conv.state_dict()) == keys
    assert torch.allclose(plain(x), before, atol=1e-6)
    with torch.no_grad():
        plain.weight.mul_(3)
    assert torch.equal(conv(enn.GeometricTensor(x, conv.in_type)).tensor.detach(), before)


def test_export_keeps_precision():
    assert ChannelwiseR2Conv(_regular(4, 1), 3).double().export().weight.dtype is torch.float64


def test_deep_copy():
    conv = ChannelwiseR2Conv(_regular(4, 2), 3)
    clone = copy.deepcopy(conv)
    x = torch.randn(1, 8, 5, 5)
    expected = conv(enn.GeometricTensor(x, conv.in_type)).tensor
    assert torch.equal(clone(enn.GeometricTensor(x, clone.in_type)).tensor, expected)
    assert clone.weights.data_ptr() != conv.weights.data_ptr()


@pytest.mark.parametrize(
    ("options", "side"), [({}, 9), ({"stride": 2}, 5), ({"padding": 1}, 11), ({"dilation": 2}, 7)]
)
def test_output_shape(options, side):
    conv = ChannelwiseR2Conv(_regular(4, 2), 3, **options)
    x = enn.GeometricTensor(torch.zeros(1, 8, 11, 11), conv.in_type)
    assert tuple(conv(x).tensor.shape) == conv.evaluate_output_shape((1, 8, 11, 11)) == (1, 8, side, side)


def test_fields_that_are_not_regular_are_refused():
    gspace = gspaces.Rot2dOnR2(4)
    mixed = enn.FieldType(gspace, [gspace.regular_repr, gspace.trivial_repr])
    with pytest.raises(InvalidArgumentError) as raised:
        ChannelwiseR2Conv(mixed, 3)
    assert str(raised.value) == (
        "`in_type`: received fields irrep_0; expected regular fields of 4-Rotations. "
        "Use R2Conv with groups=len(in_type) for other fields."
    )


def test_continuous_groups_have_no_regular_fields():
    gspace = gspaces.Rot2dOnR2(-1, maximum_frequency=1)
    with pytest.raises(InvalidArgumentError, match=r"received fields irrep_1; expected regular fields of"):
        ChannelwiseR2Conv(enn.FieldType(gspace, [gspace.irrep(1)]), 3)


def test_reflections_are_exact_too():
    torch.manual_seed(0)
    gspace = gspaces.FlipRot2dOnR2(4)
    in_type = enn.FieldType(gspace, 2 * [gspace.regular_repr])
    conv = ChannelwiseR2Conv(in_type, 3, padding=1).eval()
    x = enn.GeometricTensor(torch.randn(1, 16, 7, 7), in_type)
    with torch.no_grad():
        expected = conv(x)
        for element in gspace.testing_elements:
            difference = conv(x.transform(element)).tensor - expected.transform(element).tensor
            assert difference.abs().max() <= 2e-6 * expected.tensor.abs().max()


def test_the_trivial_group_gives_the_conventional_depthwise_convolution():
    conv = ChannelwiseR2Conv(_regular(1, 5), 3)
    assert conv.export().weight.shape == (5, 1, 3, 3)
