import copy
import pickle

import pytest
import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.cross_layer_equalization import CrossLayerScaling, equalize_model
from aimet_torch.quantsim import QuantizationSimModel
from block_networks import Conventional, Network, convolution, norm
from torch import nn

from eq_aimet import (
    PluginError,
    equalize_equivariant,
    equivariant_hooks,
    hookimpl,
    layer_blocks,
    plugin_manager,
)
from eq_aimet.aimet.output_statistics import is_outdated, output_statistics
from eq_aimet.plain import Add
from eq_aimet.symmetry.layers import is_layer

IMAGES = torch.randn(16, 3, 17, 17, generator=torch.Generator().manual_seed(0))
X = torch.cat([IMAGES.rot90(turns, (2, 3)) for turns in range(4)])


def measured(model, images=X):
    """The model with the running statistics that the images have in it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    model.train()(images)
    for module in model.modules():
        blocks = layer_blocks(module)
        if isinstance(module, nn.BatchNorm2d) and blocks is not None and blocks.blocks_out[0] > 1:
            # The images come with their quarter turns, so that only the last bits change.
            for buffer in (module.running_mean, module.running_var):
                values = buffer.reshape(len(blocks.blocks_out), 4, -1)  # [fields, quarter turns, the rest]
                buffer.copy_(values.mean(1, keepdim=True).expand_as(values).flatten())
    return model.eval()


def high_bias_network(tagged=True):
    """A source whose bias is so high that ReLU cuts next to nothing."""
    torch.manual_seed(0)
    layers = [
        convolution(3, 3, 3, image=True),
        norm(3, spread=0.1, shift=8.0),
        nn.ReLU(),
        convolution(3, 3, 3, depthwise="channel", bias=True),
        norm(3, spread=0.1, shift=8.0),
        nn.ReLU(),
        convolution(3, 1, bias=True),
    ]
    if not tagged:
        for layer in layers:
            layer.__dict__.pop("eq_aimet_blocks", None)
    return nn.Sequential(*layers).eval()


class Preactivation(nn.Module):
    """Batch norms behind a sum and a ReLU, which can't be folded into a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = convolution(3, 3, 3, image=True, bias=True)
        self.second = convolution(3, 3, bias=True)
        self.add = Add()
        self.norm = norm(3)
        self.relu = nn.ReLU()
        self.last = convolution(3, 2, bias=True)
        self.eval()

    def forward(self, x):
        x = self.first(x)
        return self.last(self.relu(self.norm(self.add(x, self.second(x)))))


def moments(model, images=X):
    """Mean and standard deviation of each channel of each module's output."""
    found = {}

    def note(module, _, output):
        channels = output.detach().double().transpose(0, 1).flatten(1)
        found[module] = channels.mean(1), channels.std(1)

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [module.register_forward_hook(note) for module in leaves]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


def largest_difference(model, images=X):
    """How far statistics are from those of the images, in standard deviations, and how many there are."""
    worst, count = 0.0, 0
    for module, (mean, deviation) in moments(model, images).items():
        statistics = output_statistics(module)
        if statistics is not None:
            assert not is_outdated(module)
            unit = deviation + 1e-3 * deviation.max()  # some channels are constant
            differences = (torch.tensor(statistics.means) - mean) / unit
            spreads = (torch.tensor(statistics.deviations) - deviation) / unit
            worst = max(worst, float(differences.abs().max()), float(spreads.abs().max()))
            count += 1
    return worst, count


@pytest.mark.parametrize("depthwise", ["channel", "field"])
@pytest.mark.parametrize("order", [4, 8])
def test_statistics_are_those_of_the_equalized_layers(depthwise, order):
    model = measured(Network(depthwise, order))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    report = equalize_equivariant(model, dummy_input=X[:1], high_bias_fold="off")
    assert report.regions
    assert report.cls_sets
    worst, count = largest_difference(model)
    assert worst <= 2e-3
    assert count == 7
    assert not torch.allclose(model.stem[0].weight, before["stem.0.weight"], rtol=0.1)
    assert output_statistics(model.head[3]) is None


def test_scaling_changes_what_is_recorded():
    model = measured(Network())
    folded = copy.deepcopy(model)
    with equivariant_hooks():
        fold_all_batch_norms(folded, None, X[:1])
    assert largest_difference(folded)[0] <= 2e-3
    equalize_equivariant(model, dummy_input=X[:1], high_bias_fold="off")
    ratio = torch.tensor(output_statistics(folded.stem[0]).means) / torch.tensor(
        output_statistics(model.stem[0]).means
    )
    assert (ratio - 1).abs().max() > 0.1
    assert torch.equal(ratio.float().reshape(3, 4).amax(1), ratio.float().reshape(3, 4).amin(1))


@pytest.mark.parametrize("tagged", [True, False])
def test_high_bias_fold_shifts_the_means(tagged):
    model = measured(high_bias_network(tagged))
    shifted = copy.deepcopy(model)
    with equivariant_hooks(high_bias_fold="off" if tagged else "unpadded"):
        fold_all_batch_norms(model, None, X[:1])
    if tagged:
        report = equalize_equivariant(shifted, dummy_input=X[:1], high_bias_fold="all")
        assert report.layers[0].absorbed_channels == 12
    else:
        with equivariant_hooks():
            equalize_model(shifted, dummy_input=X[:1])
    # What is absorbed is all but the three standard deviations that may be cut.
    statistics = output_statistics(shifted[0])
    for mean, deviation in zip(statistics.means, statistics.deviations, strict=True):
        assert mean == pytest.approx(3 * deviation, rel=1e-4)
    worst, count = largest_difference(shifted)
    assert count == 2
    assert worst <= 2e-2


def test_conventional_model_equalized_by_aimet_itself():
    model = measured(Conventional())
    plain = copy.deepcopy(model)
    with equivariant_hooks():
        equalize_model(model, dummy_input=X[:1])
    equalize_model(plain, dummy_input=X[:1])
    worst, count = largest_difference(model)
    assert count == 4
    # AIMET absorbs into padded layers, which changes what the layers behind them see.
    assert worst <= 0.3
    recorded = [output_statistics(module) for module in plain.modules() if is_layer(module)]
    assert recorded == [None] * 4
    assert all(
        torch.equal(first, second)
        for first, second in zip(model.parameters(), plain.parameters(), strict=True)
    )


def test_batch_norm_that_stays_keeps_its_statistics():
    model = measured(Preactivation())
    alone = output_statistics(model.norm)
    assert alone.means == tuple(model.norm.bias.tolist())
    report = equalize_equivariant(model, dummy_input=X[:1])
    assert report.regions
    statistics = output_statistics(model.norm)
    assert statistics.means != alone.means
    worst, count = largest_difference(model)
    assert count == 1
    assert worst <= 2e-3


def test_statistics_survive_copies_pickling_and_aimet():
    model = measured(Network())
    equalize_equivariant(model, dummy_input=X[:1])
    expected = output_statistics(model.stem[0])
    sim = QuantizationSimModel(model, dummy_input=X[:1])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), sim.model):
        assert output_statistics(other.stem[0]) == expected
        assert not is_outdated(other.stem[0])


def test_failed_equalization_leaves_no_statistics():
    class Refusing:
        @hookimpl
        def eq_aimet_equalized(self, model, report):
            assert output_statistics(model.stem[0]) is not None
            raise RuntimeError("refused")

    model, plugin = measured(Network()), Refusing()
    plugin_manager().register(plugin)
    try:
        with pytest.raises(PluginError, match="refused"):
            equalize_equivariant(model, dummy_input=X[:1])
    finally:
        plugin_manager().unregister(plugin)
    assert output_statistics(model.stem[0]) is None


def test_scaling_without_hooks_outdates_and_more_scaling_forgets():
    model = measured(Conventional())
    with equivariant_hooks():
        fold_all_batch_norms(model, None, X[:1])
    CrossLayerScaling.scale_model(model, None, dummy_input=X[:1])
    assert is_outdated(model.layers[0])
    with equivariant_hooks():
        CrossLayerScaling.scale_model(model, None, dummy_input=X[:1])
    assert output_statistics(model.layers[0]) is None


def test_rounding_of_weights_does_not_outdate():
    model = measured(Network())
    equalize_equivariant(model, dummy_input=X[:1])
    layer = model.stem[0]
    with torch.no_grad():
        step = layer.weight.abs().max() / 127
        layer.weight.copy_((layer.weight / step).round() * step)
        assert not is_outdated(layer)
        layer.weight.mul_(1.5)
    assert is_outdated(layer)
