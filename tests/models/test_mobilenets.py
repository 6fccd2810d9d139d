"""Both MobileNetV2s: shapes, counterparts, refusals, training."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest
import torch

from eq_aimet.adapters.e2cnn import ChannelwiseR2Conv, enn
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2
from eq_aimet.plain.circular_mask import circular_mask

SIZE = 19  # grids 9, 5 and 3


def _conv_shapes(network):
    """(out_channels, in_channels, stride, padding) of all convolutions, in order."""
    shapes = []
    for module in network.modules():
        if isinstance(module, enn.R2Conv):
            shapes.append((module.out_type.size, module.in_type.size, module.stride, module.padding))
        elif isinstance(module, torch.nn.Conv2d):
            shapes.append((module.out_channels, module.in_channels, module.stride[0], module.padding[0]))
    return shapes


@pytest.mark.parametrize("depthwise", ["channel", "field"])
@pytest.mark.parametrize("group", [1, 3, 4, 8])
def test_counterparts_have_the_same_layers(group, depthwise):
    equivariant = EquivariantMobileNetV2(group=group, width=0.5, depthwise=depthwise, input_size=SIZE)
    conventional = MobileNetV2(divisor=group, width=0.5, input_size=SIZE)
    assert len(_conv_shapes(equivariant)) == 52
    assert _conv_shapes(equivariant) == _conv_shapes(conventional)


@pytest.mark.parametrize("group", [*range(1, 10), 12, 16])
def test_any_group_builds_and_answers(group):
    network = EquivariantMobileNetV2(5, group=group, in_channels=1, width=1.0, input_size=17)
    assert network(torch.rand(2, 1, 17, 17)).shape == (2, 5)


@pytest.mark.parametrize("size", [17, 19, 21, 31, 33])
def test_any_odd_size(size):
    x = torch.rand(2, 3, size, size)
    for network in (
        MobileNetV2(width=0.5, input_size=size),
        EquivariantMobileNetV2(width=0.5, input_size=size),
    ):
        assert network(x).shape == (2, 2)
        assert network.blocks(network.stem(_masked(network, x))).shape[-1] == network.head_mask.mask.shape[-1]


def _masked(network, x):
    if isinstance(network, EquivariantMobileNetV2):
        x = enn.GeometricTensor(x, network.in_type)
    return network.input_mask(x)


@pytest.mark.parametrize("group", [4, 8])
def test_symmetry_shares_the_weights(group):
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    conventional = count(MobileNetV2(divisor=group))
    assert conventional == pytest.approx(2.2e6, rel=0.02)  # torchvision's with two classes: 2.226 million
    assert count(EquivariantMobileNetV2(group=group)) == pytest.approx(conventional / group, rel=0.02)


def test_modules_are_what_quantization_wants():
    for network in (MobileNetV2(width=0.5), EquivariantMobileNetV2(width=0.5)):
        for module in network.modules():
            assert not isinstance(module, torch.nn.ReLU6)
            if isinstance(module, (torch.nn.ReLU, enn.ReLU)):
                assert not module._inplace if isinstance(module, enn.ReLU) else not module.inplace
            if isinstance(module, (torch.nn.Conv2d, enn.R2Conv)):
                assert module.bias is None


def test_depthwise_choices():
    channel = EquivariantMobileNetV2(width=0.5, group=4, depthwise="channel", input_size=SIZE)
    field = EquivariantMobileNetV2(width=0.5, group=4, depthwise="field", input_size=SIZE)
    assert sum(isinstance(module, ChannelwiseR2Conv) for module in channel.modules()) == 17
    assert not any(isinstance(module, ChannelwiseR2Conv) for module in field.modules())
    grouped = [m for m in field.modules() if isinstance(m, enn.R2Conv) and m.groups > 1]
    assert [module.groups for module in grouped] == [module.in_type.size // 4 for module in grouped]
    assert len(grouped) == 17


def _note_deviation(deviations, _module, _inputs, out):
    deviations.append(getattr(out, "tensor", out).std().item())


def test_scale_stays_sane_through_depth():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 33, 33)
    for network in (MobileNetV2(width=0.5, input_size=33), EquivariantMobileNetV2(width=0.5, input_size=33)):
        deviations: list[float] = []
        for block in network.blocks:
            block.register_forward_hook(functools.partial(_note_deviation, deviations))
        network(x)
        assert len(deviations) == 17
        assert 0.8 < min(deviations) < max(deviations) < 3


@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
def test_pixels_outside_the_circle_change_nothing(make):
    torch.manual_seed(0)
    network = make(width=0.5, input_size=SIZE)
    x = torch.rand(2, 3, SIZE, SIZE)
    corner = x.clone()
    corner[..., 0, :5] = 7.0
    centre = x.clone()
    centre[..., 9, 9] = 7.0
    assert torch.equal(network(x), network(corner))
    assert not torch.allclose(network(x), network(centre), rtol=1e-2)


@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
def test_training_reduces_the_loss(make):
    torch.manual_seed(0)
    network = make(width=0.5, input_size=SIZE)
    x, target = torch.rand(8, 3, SIZE, SIZE), torch.tensor([0, 1] * 4)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.693, abs=0.1)
    assert losses[1] < losses[0]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
@pytest.mark.parametrize("shape", [(2, 3, 21, 21), (2, 1, 19, 19), (3, 19, 19), (2, 3, 19, 21)])
def test_another_shape_is_refused(make, shape):
    network = make(width=0.5, input_size=SIZE)
    with pytest.raises(InvalidArgumentError) as raised:
        network(torch.zeros(shape))
    assert str(raised.value) == (
        f"`x`: received shape {shape}; expected (batch, 3, 19, 19). Crop or resize the images to 19×19, or "
        "build the network with the `in_channels` and `input_size` of your images."
    )


@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"num_classes": 0},
            "`num_classes`: received 0; expected an integer of at least 1. Give the number of",
        ),
        ({"num_classes": 2.0}, "`num_classes`: received 2.0; expected an integer of at least 1."),
        ({"in_channels": True}, "`in_channels`: received True; expected an integer of at least 1."),
        ({"input_size": 96}, "Crop the input by one pixel, to 95."),
        ({"width": 0.25}, "`width`: received 0.25; expected at least 0.5, at which"),
        ({"width": 1e9}, "`width`: received 1000000000.0; expected a number above 0 and at most 16."),
        ({"width": "1"}, "`width`: received '1'; expected a number above 0 and at most 16."),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        make(**arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"group": 0},
            "`group`: received 0; expected an integer from 1 to 64. "
            "Give N of the cyclic group C_N, for example 4 or 8.",
        ),
        (
            {"depthwise": "block"},
            "`depthwise`: received 'block'; expected one of 'channel', 'field'. "
            'Take "channel", unless you compare with e2cnn\'s depthwise convolution.',
        ),
    ],
)
def test_wrong_arguments_of_the_equivariant_one_are_refused(arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        EquivariantMobileNetV2(**arguments)
    assert str(raised.value) == text


def test_a_wrong_divisor_is_refused():
    with pytest.raises(
        InvalidArgumentError, match=r"`divisor`: received -8; .* block size of the equivariant"
    ):
        MobileNetV2(divisor=-8)


def test_the_conventional_network_traces():
    network = MobileNetV2(width=0.5, input_size=SIZE).eval()
    x = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(torch.fx.symbolic_trace(network)(x), network(x))
    exported = torch.export.export(network, (x,)).module()
    assert torch.allclose(exported(x), network(x), atol=1e-6)


# e2cnn compares the size of its input with that of its field type.
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python boolean:torch.jit.TracerWarning")
@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
def test_jit_traces(make):
    network = make(width=0.5, input_size=SIZE).eval()
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        traced = torch.jit.trace(network, (x,), check_trace=False)
    assert torch.allclose(traced(2 * x), network(2 * x), atol=1e-5)


IMPORTS = """
import sys
import eq_aimet.models
assert "e2cnn" not in sys.modules, "e2cnn was imported"
eq_aimet.models.EquivariantMobileNetV2(width=0.25, group=4, input_size=33)
assert "e2cnn" in sys.modules
"""


def test_the_conventional_network_needs_no_e2cnn():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)


def test_unknown_names_are_refused():
    import eq_aimet.models

    with pytest.raises(AttributeError, match="attribute ResNet"):
        _ = eq_aimet.models.ResNet


@pytest.mark.parametrize("make", [MobileNetV2, EquivariantMobileNetV2])
def test_the_last_feature_map_is_masked_before_it_is_pooled(make):
    network = make(width=0.5, input_size=33)  # the last grid is 5×5
    seen = []
    network.pool.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    network(torch.rand(2, 3, 33, 33))
    pooled = getattr(seen[0], "tensor", seen[0])
    assert pooled.shape[2:] == (5, 5)
    assert torch.equal(pooled.abs().sum((0, 1)) > 0, circular_mask(5)[0, 0] > 0)
