import copy

import pytest
import torch
from aimet_torch.cross_layer_equalization import equalize_model
from block_networks import convolution, norm, relative_change, same, weights
from torch import nn

from eq_aimet import equalize_equivariant, tag_blocks
from eq_aimet.aimet.equalization.high_bias_fold import absorbable_bias, bias_correction, sees_no_zeros
from eq_aimet.symmetry import is_symmetric, symmetrize


def high_bias_chain(depthwise, **padding):
    """Source, depthwise layer and sink, with a bias so high that ReLU never cuts."""
    torch.manual_seed(0)
    model = nn.Sequential(
        convolution(1, 3),
        norm(3, spread=0.1, shift=8.0),
        nn.ReLU(),
        convolution(3, 3, 3, depthwise=depthwise, bias=True, **padding),
        nn.ReLU(),
        convolution(3, 1, bias=True),
    ).eval()
    # The input lies within three standard deviations, as the batch norm's statistics say.
    model[1].running_mean.zero_()
    model[1].running_var.fill_(1.0)
    return model


X = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(3)).clamp(-0.5, 0.5)


def fold(model, mode):
    before = copy.deepcopy(model)
    report = equalize_equivariant(model, dummy_input=X, high_bias_fold=mode)
    with torch.no_grad():
        return relative_change(before(X), model(X)), report


@pytest.mark.parametrize("depthwise", ["channel", "field", None])
@pytest.mark.parametrize("mode", ["unpadded", "all"])
def test_unpadded_fold_keeps_the_function(depthwise, mode):
    change, report = fold(high_bias_chain(depthwise), mode)
    assert change <= 1e-5
    assert report.layers[0].absorbed_channels == 12
    assert report.layers[0].absorbed_into == "3"


@pytest.mark.parametrize("depthwise", ["channel", "field", None])
def test_zero_padding_makes_the_fold_wrong_and_unpadded_leaves_it_out(depthwise):
    change, report = fold(high_bias_chain(depthwise, padding=1), "all")
    assert report.layers[0].absorbed_channels == 12
    assert change > 1e-2
    change, report = fold(high_bias_chain(depthwise, padding=1), "unpadded")
    assert change <= 1e-5
    assert report.layers[0].not_absorbed == "the sink is zero-padded"


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_other_padding_carries_the_shift_along(padding_mode):
    change, report = fold(high_bias_chain("field", padding=1, padding_mode=padding_mode), "unpadded")
    assert report.layers[0].absorbed_channels == 12
    assert change <= 1e-5


def test_off_moves_nothing():
    change, report = fold(high_bias_chain("field"), "off")
    assert change <= 1e-5
    assert report.layers[0].not_absorbed == "the high-bias fold is off"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(2, 2, 3), True),
        (nn.Conv2d(2, 2, 3, padding=(0, 1)), False),
        (nn.Conv2d(2, 2, 3, padding="valid"), True),
        (nn.Conv2d(2, 2, 3, padding="same"), False),
        (nn.Conv2d(2, 2, 1, padding="same"), True),
        (nn.Conv2d(2, 2, 1, padding=1), False),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), True),
        (nn.Conv2d(2, 2, 3, stride=2), True),
        (nn.Conv1d(2, 2, 3, padding=1), False),
        (nn.ConvTranspose2d(2, 2, 1), True),
        (nn.ConvTranspose2d(2, 2, 3), False),
        (nn.ConvTranspose2d(2, 2, 3, padding=2), True),
        (nn.ConvTranspose2d(2, 2, 3, padding=2, dilation=2), False),
        (nn.ConvTranspose2d(2, 2, 2, stride=2), False),
        (nn.ConvTranspose1d(2, 2, 1, stride=2, output_padding=1), False),
    ],
    ids=str,
)
def test_sees_no_zeros_is_what_a_constant_input_shows(layer, expected):
    """On a constant input the output is constant over space exactly where no zeros come in."""
    assert sees_no_zeros(layer) is expected
    dimensions = len(layer.kernel_size)
    with torch.no_grad():
        output = layer.double()(torch.ones(1, 2, *[9] * dimensions).double()).flatten(2)
    assert bool((output - output[..., :1]).abs().max() < 1e-12) is expected


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 6, 3, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        nn.Conv2d(8, 4, 3, groups=2, bias=False),
        nn.Conv1d(8, 8, 3, groups=4, bias=False),
        nn.ConvTranspose2d(8, 6, 3, padding=2, bias=False),
        nn.ConvTranspose2d(8, 8, 3, padding=2, groups=2, bias=False),
        nn.ConvTranspose2d(8, 8, 3, padding=2, groups=8, bias=False),
        nn.ConvTranspose1d(8, 4, 3, padding=2, groups=2, bias=False),
    ],
    ids=str,
)
def test_bias_correction_is_what_the_layer_makes_of_the_shift(layer):
    layer = copy.deepcopy(layer).double()
    shift = torch.randn(8).double()
    dimensions = len(layer.kernel_size)
    with torch.no_grad():
        output = layer(shift.reshape(1, 8, *[1] * dimensions).expand(1, 8, *[7] * dimensions))
    expected = output.flatten(2)[0, :, 0]
    assert torch.allclose(torch.from_numpy(bias_correction(layer, shift.numpy())), expected)


def test_absorbable_bias_is_constant_on_blocks():
    beta, gamma = torch.tensor([5.0, 4.0, 7.0, 1.0]).numpy(), torch.tensor([1.0, -1.0, 1.0, 1.0]).numpy()
    assert absorbable_bias(beta, gamma, relu=True, blocks=(2, 2)).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert absorbable_bias(beta, gamma, relu=True, blocks=None).tolist() == [2.0, 1.0, 4.0, 0.0]
    assert absorbable_bias(beta, gamma, relu=False, blocks=None).tolist() == beta.tolist()


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("depthwise", [1, 8])
def test_all_on_blocks_of_one_channel_is_aimet_to_the_last_bit(relu, depthwise):
    def build():
        torch.manual_seed(1)
        layers = [
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU() if relu else nn.Identity(),
            nn.Conv2d(8, 8, 3, padding=1, groups=depthwise),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 5, 1),
        ]
        model = nn.Sequential(*layers).eval()
        for layer in (model[1], model[4]):
            with torch.no_grad():
                layer.weight.copy_(torch.rand(8) + 0.1)
                layer.bias.copy_(3 * torch.randn(8))
                layer.running_var.copy_(torch.rand(8) + 0.1)
        return model

    theirs, ours, off = build(), build(), build()
    x = torch.randn(1, 3, 9, 9)
    equalize_model(theirs, dummy_input=x)
    for model, mode in ((ours, "all"), (off, "off")):
        for index in (0, 3, 6):
            tag_blocks(model[index], 1)
        equalize_equivariant(model, dummy_input=x, high_bias_fold=mode)
    assert same(weights(ours), weights(theirs))
    assert not same(weights(ours), weights(off))


def test_fold_keeps_the_bias_of_a_wide_dense_sink_tied():
    """Summed in AIMET's order the biases of one orbit would differ in the last bit."""
    torch.manual_seed(0)
    model = nn.Sequential(
        convolution(1, 40), norm(40, spread=0.1, shift=9.0), nn.ReLU(), convolution(40, 8, bias=True)
    ).eval()
    symmetrize(model)
    report = equalize_equivariant(model, dummy_input=X, high_bias_fold="unpadded")
    assert report.layers[0].absorbed_channels == 160
    assert is_symmetric(model[3], 0.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: setattr(model[3], "bias", None), "the sink has no bias"),
        (lambda model: setattr(model, "1", nn.Identity()), "no batch norm was folded into the source"),
        (lambda model: model[1].bias.data.fill_(-1.0), "no bias exceeds three standard deviations"),
    ],
)
def test_reasons(change, reason):
    model = high_bias_chain("field")
    change(model)
    _, report = fold(model, "unpadded")
    assert report.layers[0].not_absorbed == reason
    assert report.layers[0].absorbed_channels == 0


def test_a_strided_transposed_sink_is_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(
        convolution(1, 3), norm(3, spread=0.1, shift=8.0), nn.ReLU(), nn.ConvTranspose2d(12, 4, 2, stride=2)
    ).eval()
    tag_blocks(model[3], 4)
    change, report = fold(copy.deepcopy(model), "unpadded")
    assert change <= 1e-5
    assert (
        report.layers[0].not_absorbed
        == "the sink is a transposed convolution whose outputs see different taps"
    )
    change, _ = fold(model, "all")
    assert change > 1e-2
