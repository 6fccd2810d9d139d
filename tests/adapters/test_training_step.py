"""What training runs at each step: expansion, grouped convolution and batch norm, against e2cnn's own."""

from __future__ import annotations

import copy

import pytest
import torch
from e2cnn.nn.modules.r2_conv.basisexpansion_blocks import BlocksBasisExpansion

from eq_aimet.adapters.e2cnn import ChannelwiseR2Conv, build_batch_norm, build_convolution, enn, gspaces
from eq_aimet.adapters.e2cnn.grouped import convolve_in_wide_groups
from eq_aimet.models import EquivariantMobileNetV2


def _fields(order, count, *others):
    gspace = gspaces.Rot2dOnR2(order)
    representations = {"trivial": gspace.trivial_repr, "irrep": gspace.irrep(1)}
    return enn.FieldType(gspace, count * [gspace.regular_repr] + [representations[name] for name in others])


def _on_tensors(module):
    return lambda x: module(enn.GeometricTensor(x, module.in_type)).tensor


def _gradients(function, x, parameters):
    """The output, and the gradients of a weighted sum of it for input and parameters."""
    x = x.clone().requires_grad_()
    output = function(x)
    weighting = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weighting).sum(), (x, *parameters))]


def _assert_same(found, expected):
    for value, reference in zip(found, expected, strict=True):
        assert value.dtype is reference.dtype is torch.float64
        assert reference.abs().max() > 1e-3
        assert (value - reference).abs().max() <= 1e-13 * max(1.0, float(reference.abs().max()))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("order", "others", "options"),
    [
        (4, (), {}),
        (8, (), {"padding": 1, "stride": 2}),
        (2, (), {"groups": 6}),
        (3, (), {"groups": 3}),
        (4, (), {"groups": 6, "padding": 1}),
        (4, (), {"groups": 2, "padding": 1, "stride": 2}),
        (8, (), {"groups": 6, "padding_mode": "circular", "padding": 1}),
        (4, ("trivial", "irrep"), {"padding": 1}),
    ],
)
def test_the_convolution_and_its_gradients_are_e2cnns(order, others, options, size):
    torch.manual_seed(0)
    in_type = _fields(order, 6, *others)
    ours = build_convolution(in_type, in_type, size, **options).double()
    torch.nn.init.normal_(ours.bias)
    # a copy, since e2cnn's layers share their bases, which `double` converts
    plain = copy.deepcopy(enn.R2Conv(in_type, in_type, size, **options)).double()
    plain.load_state_dict(ours.state_dict())
    assert type(plain.basisexpansion) is BlocksBasisExpansion

    x = torch.randn(2, in_type.size, 7, 7, dtype=torch.float64)
    _assert_same(*(_gradients(_on_tensors(conv), x, (conv.weights, conv.bias)) for conv in (ours, plain)))


@pytest.mark.parametrize("order", [4, 8])
def test_the_expansions_gradient_is_exact(order):
    torch.manual_seed(0)
    regular = _fields(order, 2)
    for conv in (build_convolution(regular, regular, 3), ChannelwiseR2Conv(regular, 3)):
        expansion = conv.double().basisexpansion
        assert torch.autograd.gradcheck(expansion, conv.weights.detach().requires_grad_())


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 7), (16, 5)])
def test_the_expanded_copies_of_a_filter_are_bit_identical(inputs, outputs, size):
    torch.manual_seed(0)
    in_type, out_type = _fields(4, inputs), _fields(4, outputs)
    weight, _ = build_convolution(in_type, out_type, size).expand_parameters()
    # [out field, out rotation, in field, in rotation, k, k]
    blocks = weight.detach().unflatten(1, (inputs, 4)).unflatten(0, (outputs, 4))
    turned = blocks.roll((1, 1), (1, 3)).rot90(1, (4, 5))
    assert torch.equal(turned, blocks)
    assert blocks.std() > 1e-3


@pytest.mark.parametrize(
    ("groups", "width", "merged"),
    [(6, 4, 3), (5, 4, 5), (8, 2, 2), (6, 2, 3), (3, 2, 3), (4, 8, 4), (4, 3, 4), (8, 1, 8), (1, 4, 1)],
)
def test_narrow_groups_are_put_together(groups, width, merged, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(2, groups * width, 5, 5, dtype=torch.float64)
    weight = torch.randn(2 * groups, width, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2 * groups, dtype=torch.float64, requires_grad=True)
    options = {"stride": 2, "padding": 1, "groups": groups}
    convolve = torch.nn.functional.conv2d
    expected = _gradients(lambda x: convolve(x, weight, bias, **options), x, (weight, bias))

    called = []

    def recording(*arguments, **named):
        called.append(named["groups"])
        return convolve(*arguments, **named)

    monkeypatch.setattr(torch.nn.functional, "conv2d", recording)
    found = _gradients(lambda x: convolve_in_wide_groups(x, weight, bias, **options), x, (weight, bias))
    assert called == [merged]
    _assert_same(found, expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("others", [(), ("trivial", "trivial")])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_batch_norm_is_e2cnns(others, training, memory_format):
    torch.manual_seed(0)
    in_type = _fields(4, 3, *others)
    ours, plain = build_batch_norm(in_type).double(), enn.InnerBatchNorm(in_type).double()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, in_type.size, 5, 5, dtype=torch.float64).to(memory_format=memory_format)
    ours(enn.GeometricTensor(3 * x + 1, in_type))  # statistics unlike the initial ones
    plain.load_state_dict(ours.state_dict())

    norms = (ours.train(training), plain.train(training))
    _assert_same(*(_gradients(_on_tensors(norm), x, norm.parameters()) for norm in norms))
    expected, found = plain.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert all(torch.allclose(found[name], expected[name], rtol=1e-13) for name in expected)


def test_a_batch_norm_refuses_other_fields():
    norm = build_batch_norm(_fields(4, 2))
    other = _fields(8, 1)
    with pytest.raises(AssertionError):
        norm(enn.GeometricTensor(torch.zeros(1, 8, 3, 3), other))


@pytest.mark.parametrize("depthwise", ["channel", "field"])
def test_a_filter_follows_its_weights_however_they_are_changed(depthwise):
    torch.manual_seed(0)
    network = EquivariantMobileNetV2(width=0.25, group=4, depthwise=depthwise, input_size=33)
    x = torch.rand(4, 3, 33, 33)
    first = network(x).detach()
    conv = next(module for module in network.modules() if isinstance(module, enn.R2Conv))
    conv.weights.data.mul_(-1.5)  # which torch's version counter doesn't see
    changed = network(x).detach()
    assert not torch.allclose(changed, first)
    fresh = copy.deepcopy(network)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh(x), changed)


def test_gradients_add_up_over_the_passes_of_a_step():
    torch.manual_seed(0)
    regular = _fields(4, 4)
    conv = build_convolution(regular, regular, 3, groups=4).double()
    batches = torch.randn(2, 3, regular.size, 5, 5, dtype=torch.float64)
    for batch in batches:
        conv(enn.GeometricTensor(batch, regular)).tensor.square().sum().backward()
    apart = conv.weights.grad.clone()
    conv.zero_grad()
    conv(enn.GeometricTensor(batches.flatten(0, 1), regular)).tensor.square().sum().backward()
    assert torch.allclose(apart, conv.weights.grad, rtol=1e-12)
    assert conv.weights.grad.abs().min() > 0
