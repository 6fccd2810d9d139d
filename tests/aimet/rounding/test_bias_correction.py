"""Bias correction: the mean of each layer's output is right again, and tied channels stay tied."""

import json

import pytest
import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.common.quantsim_config.utils import get_path_for_per_tensor_config
from aimet_torch.quantization.affine import QuantizeDequantize
from aimet_torch.quantsim import QuantizationSimModel
from block_networks import Conventional, Network, same

from eq_aimet import correct_bias, equalize_equivariant, equivariance_error, equivariant_hooks, is_symmetric
from eq_aimet.errors import InvalidArgumentError

IMAGES = torch.rand(48, 3, 17, 17, generator=torch.Generator().manual_seed(7))


def forward(model):
    for batch in IMAGES.split(20):
        model(batch)


def simulate(model, bits=4, *, calibrated=True, **options):
    """Return the simulation of a network whose batch norms are folded so that their statistics are kept."""
    if isinstance(model, Network):
        equalize_equivariant(model, dummy_input=IMAGES[:1])
    else:
        with equivariant_hooks():
            fold_all_batch_norms(model, None, dummy_input=IMAGES[:1])
    sim = QuantizationSimModel(model, dummy_input=IMAGES[:1], default_param_bw=bits, **options)
    if calibrated:
        sim.compute_encodings(forward)
    return sim


def outputs(model):
    with torch.no_grad():
        return model(IMAGES)


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def signal_to_noise(model, reference):
    return float(10 * torch.log10(reference.square().sum() / (outputs(model) - reference).square().sum()))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    "network",
    [lambda: Network(), lambda: Network("field", order=8), lambda: Conventional()],
    ids=["C4 channel-wise", "C8 field-wise", "conventional"],
)
def test_the_mean_of_each_layer_is_right_again(network, bits):
    report = correct_bias(simulate(network(), bits), forward)
    assert report.method == "empirical"
    assert len(report.layers) >= 4
    assert not report.left_out
    for layer in report.layers:
        assert layer.error_after <= 0.2 * layer.error_before


def test_the_reported_errors_are_those_of_the_layer_outputs():
    model = Conventional()
    sim = simulate(model)
    reference = outputs(model)  # AIMET copies the model
    sim.model.layers[8].output_quantizers[0] = None
    before = outputs(sim.model)
    entry = correct_bias(sim, forward).layers[-1]
    after = outputs(sim.model)
    for simulated, error in ((before, entry.error_before), (after, entry.error_after)):
        difference = (simulated - reference).double().mean((0, 2, 3))
        assert error == pytest.approx(float(difference.square().mean().sqrt()), rel=1e-3, abs=1e-5)
    taken_off = model.layers[8].bias.detach().double() - sim.model.layers[8].bias.detach().double()
    torch.testing.assert_close(torch.tensor(entry.taken_off).double(), taken_off, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [4, 8])
@pytest.mark.parametrize("method", ["empirical", "analytic"])
def test_a_tied_network_stays_exactly_equivariant(order, method):
    sim = simulate(Network("field", order=order))
    former = sim.model.residual.body[0].bias.detach().clone()
    correct_bias(sim, forward if method == "empirical" else None)
    assert is_symmetric(sim.model)
    assert not torch.equal(sim.model.residual.body[0].bias, former)
    assert equivariance_error(sim.model, IMAGES[:4]).worst == 0.0


def test_it_recovers_decibels_that_coarse_weights_cost():
    model = Conventional(seed=3)
    sim = simulate(model, config_file=get_path_for_per_tensor_config())
    reference = outputs(model)
    coarse = signal_to_noise(sim.model, reference)
    correct_bias(sim, forward)
    assert signal_to_noise(sim.model, reference) > coarse + 3.0


def test_the_analytic_error_is_that_of_the_clipped_normal():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 1, bias=False),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 5, 1),
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model[1].weight.copy_(torch.rand(6, generator=generator) + 0.5)
        model[1].bias.copy_(torch.randn(6, generator=generator))
    beta, gamma = model[1].bias.detach().double(), model[1].weight.detach().double()
    with equivariant_hooks():
        fold_all_batch_norms(model, None, dummy_input=IMAGES[:1])
    sim = QuantizationSimModel(model, dummy_input=IMAGES[:1], default_param_bw=4)
    sim.compute_encodings(forward)
    layer = sim.model[3]
    rounding = (layer.param_quantizers["weight"](layer.weight) - layer.weight).detach().double()[..., 0, 0]

    report = correct_bias(sim)

    # Nagel et al., arXiv 1906.04721, equation 19: the mean of a normal distribution clipped at zero.
    normal = torch.distributions.Normal(0.0, 1.0)
    ratio = beta / gamma
    mean = gamma * normal.log_prob(ratio).exp() + beta * normal.cdf(ratio)
    torch.testing.assert_close(
        torch.tensor(report.layers[0].taken_off).double(), rounding @ mean, rtol=2e-3, atol=2e-4
    )
    assert report.left_out == (("0", "it reads the network's input, of which no statistics tell"),)


def test_zero_padding_counts_in_the_analytic_error():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 3, padding=1)
    ).eval()
    with torch.no_grad():
        model[1].bias.fill_(5.0)
        model[1].weight.fill_(1e-3)  # the input of the last layer is 5 everywhere
    with equivariant_hooks():
        fold_all_batch_norms(model, None, dummy_input=IMAGES[:1])
    sim = QuantizationSimModel(model, dummy_input=IMAGES[:1], default_param_bw=4)
    sim.compute_encodings(forward)
    layer = sim.model[2]
    rounding = (layer.param_quantizers["weight"](layer.weight) - layer.weight).detach()
    expected = torch.nn.functional.conv2d(torch.full((1, 4, 17, 17), 5.0), rounding, padding=1).mean(
        (0, 2, 3)
    )
    report = correct_bias(sim)
    torch.testing.assert_close(torch.tensor(report.layers[0].taken_off), expected, rtol=1e-3, atol=1e-4)


def test_a_layer_without_a_bias_gets_one():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.ReLU())
    sim = QuantizationSimModel(model, dummy_input=IMAGES[:1], default_param_bw=4)
    sim.compute_encodings(forward)
    (layer,) = correct_bias(sim, forward).layers
    assert layer.error_after <= 0.2 * layer.error_before
    torch.testing.assert_close(sim.model[0].bias.detach().double(), -torch.tensor(layer.taken_off).double())


def test_a_layer_that_runs_twice_is_corrected_for_both_runs():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.relu = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.ReLU()

        def forward(self, x):
            return self.layer(self.relu(self.layer(x)))

    sim = QuantizationSimModel(Twice(), dummy_input=IMAGES[:1], default_param_bw=4)
    sim.compute_encodings(forward)
    (layer,) = correct_bias(sim, forward).layers
    assert layer.error_after <= 0.2 * layer.error_before


def test_the_report_is_readable_and_goes_to_json():
    sim = simulate(Conventional())
    sim.model.layers[0].param_quantizers["weight"] = None
    report = correct_bias(sim, forward)
    lines = str(report).splitlines()
    assert lines[0].split() == ["layer", "largest", "taken", "off", "mean's", "error", "before", "after"]
    assert [line.split()[0] for line in lines[1:-1]] == ["layers.3", "layers.6", "layers.8"]
    assert lines[-1] == "layers.0: left out, its weight is not quantized"
    assert json.loads(json.dumps(report.to_dict()))["layers"][0]["name"] == "layers.3"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (7, r"`forward`: received a int; .*correct_bias\(sim, lambda model: model\(images\)\)"),
        (lambda model: None, "runs no quantized layer"),
        (lambda model: model(torch.rand(2, 3, 17, 17)), "other images on each call"),
        (lambda model: model(torch.full((2, 3, 17, 17), float("nan"))), "`layers.0` is not finite"),
        (lambda model: model(torch.rand(2, 4, 17, 17)), "fails with RuntimeError: .*is on cpu"),
        (lambda model: model(torch.empty(2, 3, 17, 17, device="meta")), "fails with .*is on cpu"),
    ],
    ids=["no function", "no run", "random images", "NaN", "other channels", "other device"],
)
def test_wrong_functions_are_named_and_nothing_changes(wrong, text):
    sim = simulate(Conventional())
    before = parameters(sim.model)
    with pytest.raises(InvalidArgumentError, match=text):
        correct_bias(sim, wrong)
    assert same(before, parameters(sim.model))


def test_neither_data_nor_statistics():
    sim = QuantizationSimModel(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), dummy_input=IMAGES[:1])
    sim.compute_encodings(forward)
    with pytest.raises(InvalidArgumentError, match=r"no batch-norm statistics|no layer has batch-norm stat"):
        correct_bias(sim)


def test_wrong_simulations_are_named():
    with pytest.raises(InvalidArgumentError, match=r"`sim`: received a Conventional"):
        correct_bias(Conventional(), forward)
    with pytest.raises(InvalidArgumentError, match=r"`sim`: received no encoding of"):
        correct_bias(simulate(Conventional(), calibrated=False), forward)
    sim = simulate(Network())
    with torch.no_grad():
        sim.model.residual.body[0].weight[0, 0] += 0.1
    with pytest.raises(InvalidArgumentError, match=r"`residual.body.0` whose .*symmetrize\(sim.model\)"):
        correct_bias(sim, forward)


def test_frozen_encodings_of_biases_are_named_and_others_follow_the_bias():
    sim = simulate(Conventional())
    quantizer = QuantizeDequantize((8,), 8, symmetric=True)
    sim.model.layers[3].param_quantizers["bias"] = quantizer
    with quantizer.compute_encodings():
        quantizer(sim.model.layers[3].bias)
    quantizer.allow_overwrite(False)
    with pytest.raises(InvalidArgumentError, match=r"frozen encoding of layers.3.bias.*allow_overwrite"):
        correct_bias(sim, forward)
    quantizer.allow_overwrite(True)
    correct_bias(sim, forward)
    torch.testing.assert_close(
        quantizer.get_max().detach(), sim.model.layers[3].bias.detach().abs(), rtol=0.02, atol=1e-6
    )
