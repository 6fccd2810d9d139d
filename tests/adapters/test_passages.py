"""What scales cross beside e2cnn's modules: batch norms that AIMET can't fold, and functions of torch."""

import copy

import pytest
import torch
from torch import nn

from eq_aimet import equalize_equivariant, tag_blocks

FIELDS, ORDER = 3, 4
BLOCKS = FIELDS * (ORDER,)


class Pooled(nn.Module):
    """A batch norm behind a pooling, and in front of a padded convolution: AIMET folds it into neither.

    Args:
        twice: Whether the batch norm runs a second time, or another one does.
        reads: Whether the second convolution reads the source, or else the model's input.
    """

    def __init__(self, twice, reads):
        super().__init__()
        torch.manual_seed(0)
        channels = FIELDS * ORDER
        self.source = nn.Conv2d(channels, channels, 1)
        self.pool, self.norm = nn.AvgPool2d(3, 1, 1), nn.BatchNorm2d(channels)
        self.pool_2, self.norm_2 = nn.AvgPool2d(3, 1, 1), self.norm if twice else nn.BatchNorm2d(channels)
        self.sink, self.sink_2 = (nn.Conv2d(channels, 2, 3, padding=1) for _ in range(2))
        self.reads = reads
        for layer, blocks in ((self.source, BLOCKS), (self.sink, (1, 1)), (self.sink_2, (1, 1))):
            tag_blocks(layer, BLOCKS, blocks)
        with torch.no_grad():
            self.source.weight *= torch.logspace(-1, 1, FIELDS).repeat_interleave(ORDER)[:, None, None, None]
            for value in (self.norm.running_mean, self.norm.weight, self.norm.bias):
                value.copy_(torch.randn(channels))

    def forward(self, x):
        y = self.source(x)
        first = self.sink(self.norm(self.pool(y)))
        return first, self.sink_2(self.norm_2(self.pool_2(y if self.reads else x)))


def _equalize(model):
    x = torch.randn(2, FIELDS * ORDER, 5, 5)
    original = copy.deepcopy(model.eval())
    report = equalize_equivariant(model, dummy_input=x, high_bias_fold="off")
    with torch.no_grad():
        expected, actual = original.double()(x.double()), copy.deepcopy(model).double()(x.double())
    for before, after in zip(expected, actual, strict=True):
        assert float((before - after).abs().max()) <= 1e-5 * float(before.abs().max())
    return report


@pytest.mark.parametrize("reads", [True, False])
def test_scales_pass_and_the_function_stays(reads):
    model = Pooled(False, reads)
    report = _equalize(model)
    assert not any(norm.folded_into for norm in report.norms)
    (region,) = report.regions
    assert region.sinks == (("sink", "sink_2") if reads else ("sink",))
    assert region.scales.largest > 2.0 * region.scales.smallest


@pytest.mark.parametrize("reads", [True, False])
def test_what_runs_twice_stops_them(reads):
    model = Pooled(True, reads)
    weight = model.source.weight.clone()
    report = _equalize(model)
    assert report.regions == ()
    assert torch.equal(weight, model.source.weight)
    source = next(layer for layer in report.left_out if layer.name == "source")
    assert "is used in several places" in source.reason


class Meaned(nn.Module):
    """A mean over the pixels by a function, of as many or not so many channels as rows."""

    def __init__(self):
        super().__init__()
        self.source, self.relu = nn.Conv2d(1, ORDER, 1), nn.ReLU()
        self.linear = nn.Linear(ORDER, 2)
        tag_blocks(self.source, (1,), (ORDER,))

    def forward(self, x):
        return self.linear(self.relu(self.source(x)).mean((2, 3)).reshape(x.size(0), -1))


@pytest.mark.parametrize("size", [5, ORDER])
def test_a_mean_passes_whatever_the_number_of_pixels(size):
    model = Meaned().eval()
    report = equalize_equivariant(model, dummy_input=torch.randn(2, 1, size, size), high_bias_fold="off")
    assert report.regions


class Shifted(nn.Module):
    """A sum with the model's input, which keeps its scale, and a ReLU behind it."""

    def __init__(self):
        super().__init__()
        self.source, self.relu, self.sink = nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)
        tag_blocks(self.source, (4,), (4,))

    def forward(self, x):
        return self.sink(self.relu(self.source(x) + x))


def test_the_reason_names_what_stops_the_scale_not_what_lies_behind():
    report = equalize_equivariant(Shifted().eval(), dummy_input=torch.randn(1, 4, 5, 5), high_bias_fold="off")
    source, sink = report.left_out
    assert "joins it with what keeps its scale: it is the model's input" in source.reason
    assert "ReLU" not in sink.reason
