import json

import pytest
import torch

from eq_aimet import tag_blocks
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures import measure_weight_ranges, most_uneven_layer


def convolution(values, **arguments):
    """A convolution whose weight is `values`, one list an output channel."""
    weight = torch.tensor(values)  # [out, in/groups * k * k]
    layer = torch.nn.Conv2d(bias=False, out_channels=len(weight), **arguments)
    layer.weight.data = weight.reshape(layer.weight.shape)
    return layer


def test_the_figures_are_those_of_each_output_channel():
    layer = convolution([[-4.0, 0.0, 1.0, 2.0, 3.0], [0.5, 0.5, 0.5, 0.5, 0.5]], in_channels=5, kernel_size=1)
    (found,) = measure_weight_ranges(torch.nn.Sequential(layer))
    assert found.minimum == (-4.0, 0.5)
    assert found.lower_quartile == (0.0, 0.5)
    assert found.median == (1.0, 0.5)
    assert found.upper_quartile == (2.0, 0.5)
    assert found.maximum == (3.0, 0.5)
    assert found.ranges == (4.0, 0.5)
    assert (found.largest, found.ratio, found.dead, found.blocks) == (4.0, 8.0, 0, None)


def test_dead_channels_are_counted_and_left_out_of_the_ratio():
    layer = convolution([[0.0], [3.0], [1.5], [0.0]], in_channels=1, kernel_size=1)
    (found,) = measure_weight_ranges(layer)
    assert (found.dead, found.ratio) == (2, 2.0)
    layer.weight.data.zero_()
    (found,) = measure_weight_ranges(layer)
    assert (found.dead, found.ratio, found.largest) == (4, 1.0, 0.0)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_measured_by_its_output_channels(groups):
    layer = torch.nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    with torch.no_grad():  # output channel 1 of the last group
        layer.weight[-1, 1] = 7.0
    (found,) = measure_weight_ranges(layer)
    channel = 1 if groups == 1 else 4
    assert len(found.ranges) == len(found.maximum) == 6
    assert found.maximum[channel] == found.ranges[channel] == found.largest == 7.0
    pairs = zip(found.minimum, found.maximum, found.ranges, strict=True)
    assert all(reach == max(abs(low), abs(high)) for low, high, reach in pairs)


def test_layers_say_their_kind_and_their_blocks():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.Conv2d(8, 8, 3, groups=8),
        torch.nn.Conv2d(8, 8, 3, groups=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 4, 1),
        torch.nn.Linear(4, 2),
    )
    tag_blocks(model[0], 1, (6, 2))
    tag_blocks(model[1], 4)
    found = measure_weight_ranges(model)
    assert [layer.kind for layer in found] == ["convolution", "depthwise", "grouped", "pointwise", "linear"]
    assert [layer.name for layer in found] == ["0", "1", "2", "4", "5"]
    assert [layer.blocks for layer in found] == [(6, 2), (4, 4), None, None, None]


def test_a_model_with_a_graph_is_gone_through_from_input_to_output():
    class Backwards(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(3, 2)
            self.first = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.first(x))

    model = Backwards()
    assert [layer.name for layer in measure_weight_ranges(model)] == ["last", "first"]
    traced = torch.fx.symbolic_trace(model)
    traced.first = traced._modules.pop("first")  # now registered behind the last one
    assert [name for name, _ in traced.named_children()] == ["last", "first"]
    assert [layer.name for layer in measure_weight_ranges(traced)] == ["first", "last"]


def test_json_has_all_figures():
    (found,) = measure_weight_ranges(convolution([[2.0], [0.5]], in_channels=1, kernel_size=1))
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["ranges"] == [2.0, 0.5]
    assert (plain["largest"], plain["dead"], plain["ratio"]) == (2.0, 0, 4.0)


def test_the_layer_to_look_at_is_the_depthwise_one_that_differs_most_and_can_be_read():
    uneven = [[1.0]] * 3 + [[100.0]]
    model = torch.nn.Sequential(
        convolution(uneven, in_channels=1, kernel_size=1),
        convolution([[1.0]] * 3 + [[2.0]], in_channels=4, kernel_size=1, groups=4),
        convolution([[1.0]] * 3 + [[3.0]], in_channels=4, kernel_size=1, groups=4),
        convolution([[1.0]] * 199 + [[9.0]], in_channels=200, kernel_size=1, groups=200),
    )
    layers = measure_weight_ranges(model)
    assert most_uneven_layer(layers) == "2"
    assert most_uneven_layer(layers, channels_at_most=500) == "3"
    assert most_uneven_layer(layers[:1]) == "0"
    assert most_uneven_layer(layers[3:]) == "3"
    with pytest.raises(InvalidArgumentError, match="received no layer; expected at least one"):
        most_uneven_layer(())


def test_unfit_models_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"received a ReLU without .*export_model"):
        measure_weight_ranges(torch.nn.ReLU())
    with pytest.raises(InvalidArgumentError, match=r"received a str; .*sim\.model"):
        measure_weight_ranges("model")
    broken = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    broken[0].weight.data.fill_(float("nan"))
    with pytest.raises(InvalidArgumentError, match="NaN or infinite weights in `0`"):
        measure_weight_ranges(broken)
