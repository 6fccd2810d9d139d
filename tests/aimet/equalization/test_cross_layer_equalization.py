import copy

import numpy as np
import pytest
import torch
from aimet_torch.cross_layer_equalization import equalize_model
from block_networks import Network, convolution, norm, relative_change, same, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eq_aimet import (
    equalize_equivariant,
    equivariant_hooks,
    tag_blocks,
)
from eq_aimet.symmetry import equivariance_error, is_symmetric
from eq_aimet.symmetry.blocks import stored_blocks

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=[("channel", 4), ("field", 4), ("channel", 8), ("field", 8)], ids=str)
def case(request):
    depthwise, order = request.param
    before = Network(depthwise, order)
    after = copy.deepcopy(before)
    report = equalize_equivariant(after, dummy_input=IMAGE, high_bias_fold="off")
    return before, after, report


def test_function_is_unchanged(case):
    before, after, _ = case
    with torch.no_grad():
        assert relative_change(before(IMAGE), after(IMAGE)) <= 1e-5
    assert not torch.equal(before.stem[0].weight, after.stem[0].weight)


def test_equivariance_is_unchanged(case):
    before, after, _ = case
    assert float(equivariance_error(before, IMAGE)) <= 1e-10
    assert float(equivariance_error(after, IMAGE)) <= 1e-10


def test_every_triplet_is_equalized(case):
    _, _, report = case
    assert [cls_set.layers for cls_set in report.cls_sets] == [
        ("stem.0", "depthwise.0", "depthwise.3"),
        ("residual.body.0", "residual.body.3", "residual.body.6"),
    ]


def test_weights_stay_tied_to_the_last_bit(case):
    _, after, _ = case
    tied = [layer for layer in after.modules() if stored_blocks(layer) is not None]
    assert len(tied) == 7
    assert all(is_symmetric(layer, 0.0) for layer in tied)


def test_scales_are_constant_on_each_block(case):
    before, after, report = case
    order = report.cls_sets[0].blocks[0]
    # Two layers of the set give the scale back: of the source by rows, of the sink by columns.
    source, sink = before.residual.body[0].weight, before.residual.body[6].weight
    folded = copy.deepcopy(before)
    gamma = folded.residual.body[1].weight / torch.sqrt(folded.residual.body[1].running_var + 1e-5)
    rows = after.residual.body[0].weight[:, 0, 0, 0] / (source[:, 0, 0, 0] * gamma)
    columns = after.residual.body[6].weight[0, :, 0, 0] / sink[0, :, 0, 0]
    for values in (rows, columns):
        blocks = values.reshape(-1, order)
        assert torch.allclose(blocks, blocks[:, :1].expand_as(blocks), rtol=1e-5)
        assert blocks[:, 0].std() > 1e-3


def test_ranges_of_a_triplet_become_equal(case):
    _, after, report = case
    order = report.cls_sets[1].blocks[0]
    source, depthwise, sink = (after.residual.body[index].weight.abs() for index in (0, 3, 6))
    ranges = [
        source.amax((1, 2, 3)).reshape(-1, order).amax(1),
        depthwise.amax((1, 2, 3)).reshape(-1, order).amax(1),
        sink.amax((0, 2, 3)).reshape(-1, order).amax(1),
    ]
    assert torch.allclose(ranges[0], ranges[1], rtol=1e-4)
    assert torch.allclose(ranges[1], ranges[2], rtol=1e-4)


@pytest.mark.parametrize("high_bias_fold", ["unpadded", "all", "off"])
def test_aimet_under_hooks_gives_the_same_bits(high_bias_fold):
    ours, theirs = Network("field"), Network("field")
    equalize_equivariant(ours, dummy_input=IMAGE, high_bias_fold=high_bias_fold)
    with equivariant_hooks(high_bias_fold=high_bias_fold):
        equalize_model(theirs, dummy_input=IMAGE)
    assert same(weights(ours), weights(theirs))
    assert not same(weights(ours), weights(Network("field")))


def test_hbf_modes_differ_and_keep_ties():
    results = {}
    for mode in ("unpadded", "all", "off"):
        model = Network("field")
        equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold=mode)
        assert is_symmetric(model)
        assert float(equivariance_error(model, IMAGE)) <= 1e-10
        results[mode] = weights(model)
    assert not same(results["unpadded"], results["all"])
    assert not same(results["unpadded"], results["off"])


def test_input_shapes_do_as_well_as_an_input():
    by_shape, by_input = Network(), Network()
    equalize_equivariant(by_shape, input_shapes=(1, 3, 17, 17))
    equalize_equivariant(by_input, dummy_input=IMAGE)
    assert same(weights(by_shape), weights(by_input))


def test_train_mode_uses_running_statistics_and_comes_back():
    training, evaluating = Network().train(), Network()
    training.residual.eval()
    flags = {name: module.training for name, module in training.named_modules()}
    equalize_equivariant(training, dummy_input=IMAGE)
    equalize_equivariant(evaluating, dummy_input=IMAGE)
    assert same(weights(training), weights(evaluating))
    assert {name: module.training for name, module in training.named_modules()} == flags
    assert not any(module.training for module in evaluating.modules())


def test_data_parallel_is_unwrapped():
    wrapped, plain = nn.DataParallel(Network()), Network()
    report = equalize_equivariant(wrapped, dummy_input=IMAGE)
    equalize_equivariant(plain, dummy_input=IMAGE)
    assert same(weights(wrapped.module), weights(plain))
    assert report.layers[0].name == "stem.0"


def test_float64_stays_float64():
    model = Network("field").double()
    before = copy.deepcopy(model)
    equalize_equivariant(model, dummy_input=IMAGE.double(), high_bias_fold="off")
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    with torch.no_grad():
        assert relative_change(before(IMAGE.double()), model(IMAGE.double())) <= 1e-12


def test_dead_blocks_are_left_alone():
    layers = [convolution(2, 3), nn.ReLU(), convolution(3, 2)]
    with torch.no_grad():
        layers[0].weight[:4] = 0.0
    model = nn.Sequential(*layers).eval()
    before = copy.deepcopy(model)
    report = equalize_equivariant(model, dummy_input=torch.randn(1, 8, 5, 5))
    assert torch.equal(model[0].weight[:4], torch.zeros(4, 8, 1, 1))
    assert torch.equal(model[2].weight[:, :4], before[2].weight[:, :4])
    assert not torch.equal(model[2].weight[:, 4:], before[2].weight[:, 4:])
    # Of twelve channels the first block is dead and is not counted as the smallest range.
    alive = before[0].weight.detach().abs().amax((1, 2, 3)).reshape(3, 4).amax(1)[1:]
    assert report.layers[0].ranges_before.smallest == pytest.approx(float(alive.min()))


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.twice, self.last = (convolution(2, 2, bias=True) for _ in range(3))
        with torch.no_grad():
            self.first.weight[:4] *= 50
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))

    def forward(self, x):
        x = self.relus[0](self.first(x))
        x = self.relus[1](self.twice(x))
        return self.last(self.relus[2](self.twice(x)))


def test_a_layer_that_runs_twice_is_left_alone():
    model = Reused().eval()
    before, x = copy.deepcopy(model), torch.randn(1, 8, 5, 5)
    report = equalize_equivariant(model, dummy_input=x)
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-6
    reasons = {layer.name: layer.reason for layer in report.left_out}
    assert reasons["twice"] == "`twice` runs 2 times in one forward pass"


def test_layers_that_share_a_weight_are_left_alone():
    model = nn.Sequential(
        convolution(2, 2), nn.ReLU(), convolution(2, 2), nn.ReLU(), convolution(2, 2)
    ).eval()
    model[4].weight = model[2].weight
    with torch.no_grad():
        model[0].weight[:4] *= 50
    before, x = copy.deepcopy(model), torch.randn(1, 8, 5, 5)
    report = equalize_equivariant(model, dummy_input=x)
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-6
    assert "`4` shares its weight with another layer" in report.left_out[-1].reason


class TwoOutputs(nn.Module):
    def __init__(self, after_relu):
        super().__init__()
        torch.manual_seed(0)
        self.after_relu = after_relu
        self.first, self.second, self.third = convolution(2, 2), convolution(2, 2), convolution(2, 2)
        self.relu, self.last_relu = nn.ReLU(), nn.ReLU()
        with torch.no_grad():
            self.first.weight[:4] *= 50

    def forward(self, x):
        x = self.first(x)
        rectified = self.relu(x)
        return self.third(self.last_relu(self.second(rectified))), (rectified if self.after_relu else x)


@pytest.mark.parametrize("after_relu", [True, False])
def test_what_the_model_returns_is_not_scaled(after_relu):
    model = TwoOutputs(after_relu).eval()
    before, x = copy.deepcopy(model), torch.randn(1, 8, 5, 5)
    report = equalize_equivariant(model, dummy_input=x)
    with torch.no_grad():
        (first, second), (after_first, after_second) = before(x), model(x)
    assert relative_change(first, after_first) <= 1e-6
    assert relative_change(second, after_second) <= 1e-6
    assert [cls_set.layers for cls_set in report.cls_sets] == [("second", "third")]
    assert "its output: it is an output of the model" in report.left_out[0].reason


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_and_one_dimensional_layers(groups):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ConvTranspose1d(3, 8, 2, stride=2),
        nn.ReLU(),
        nn.ConvTranspose1d(8, 8, 3, groups=groups),
        nn.ReLU(),
        nn.Conv1d(8, 2, 1),
    ).eval()
    tag_blocks(model[0], 1, 4), tag_blocks(model[2], 4), tag_blocks(model[4], 4, 1)
    before, x = copy.deepcopy(model), torch.randn(1, 3, 9)
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-6
    assert len(report.equalized) == 3
    scale = (before[4].weight / model[4].weight)[0, :, 0].reshape(2, 4)
    assert torch.allclose(scale, scale[:, :1].expand(2, 4))
    assert not torch.allclose(scale[0], scale[1])


def test_a_batch_norm_before_a_layer_keeps_its_bias_tied():
    torch.manual_seed(0)
    model = nn.Sequential(
        norm(6), convolution(6, 6), nn.ReLU(), convolution(6, 2, bias=True), nn.ReLU(), convolution(2, 1)
    ).eval()
    before, x = copy.deepcopy(model), torch.randn(1, 24, 5, 5)
    report = equalize_equivariant(model, dummy_input=x)
    assert report.norms[0].folded_into == "1"
    assert is_symmetric(model[1], 0.0)
    assert report.layers[0].not_absorbed.startswith("the source's batch norm came before it")
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-5


@settings(max_examples=8, deadline=None)
@given(
    order=st.sampled_from([2, 4, 8]),
    widths=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    depthwise=st.lists(st.sampled_from([None, "channel", "field"]), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_random_chains_keep_function_and_symmetry(order, widths, depthwise, seed):
    torch.manual_seed(seed)
    layers = [convolution(1, widths[0], 3, order=order, image=True), norm(widths[0], order=order), nn.ReLU()]
    for width_in, width_out, kind in zip(widths, widths[1:], depthwise, strict=False):
        if kind:
            layers += [
                convolution(width_in, width_in, 3, order=order, depthwise=kind, padding=1),
                norm(width_in, order=order),
                nn.ReLU(),
            ]
        layers += [convolution(width_in, width_out, order=order), norm(width_out, order=order), nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).double().eval()  # without the last ReLU, after which all may be zero
    before, x = copy.deepcopy(model), torch.randn(1, 1, 7, 7).double()
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-10
    assert is_symmetric(model)
    assert report.left_out == ()


def test_report_spans_the_scales():
    model = nn.Sequential(convolution(1, 2), nn.ReLU(), convolution(2, 1)).eval()
    before = copy.deepcopy(model)
    report = equalize_equivariant(model, dummy_input=torch.randn(1, 4, 5, 5))
    scales = (model[2].weight / before[2].weight)[0, :, 0, 0].detach().numpy()
    span = report.cls_sets[0].scales[0]
    np.testing.assert_allclose([span.smallest, span.largest], [scales.min(), scales.max()], rtol=1e-5)
