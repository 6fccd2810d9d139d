import json

import pytest
import torch
from block_networks import Network, convolution, norm
from torch import nn

from eq_aimet import equalize_equivariant
from eq_aimet.plain import Add
from eq_aimet.symmetry.layers import is_layer

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def report():
    return equalize_equivariant(Network("field"), dummy_input=IMAGE)


def test_every_layer_is_in_it_in_execution_order(report):
    names = [name for name, module in Network().named_modules() if is_layer(module)]
    assert [layer.name for layer in report.layers] == names
    assert len(report.equalized) + len(report.left_out) == len(names) == 8


def test_roles_and_sets(report):
    layers = {layer.name: layer for layer in report.layers}
    assert layers["stem.0"].roles == ("source",)
    assert layers["depthwise.0"].roles == ("depthwise",)
    assert layers["depthwise.3"].roles == ("sink", "source")
    assert layers["depthwise.3"].regions == layers["residual.body.6"].regions == (1,)
    assert report.regions[0].sources == ("depthwise.3", "residual.body.6")
    assert report.regions[0].sinks == ("residual.body.0", "last.0")
    assert report.regions[0].count == 3
    assert layers["stem.0"].cls_sets == (("stem.0", "depthwise.0", "depthwise.3"),)
    assert layers["stem.0"].blocks_out == (4, 4, 4)
    assert report.cls_sets[0].blocks == (4, 4, 4)
    assert all(layer.reason == "" for layer in report.equalized)


def test_ranges_show_the_equalization(report):
    layers = {layer.name: layer for layer in report.layers}
    before, after = layers["residual.body.3"].ranges_before, layers["residual.body.3"].ranges_after
    assert after.largest / after.smallest < before.largest / before.smallest
    first, second = layers["residual.body.0"].ranges_after, layers["residual.body.3"].ranges_after
    assert first.smallest == pytest.approx(second.smallest, rel=1e-4)
    assert first.largest == pytest.approx(second.largest, rel=1e-4)


def test_a_layer_can_be_sink_and_source():
    model = nn.Sequential(
        convolution(1, 2), nn.ReLU(), convolution(2, 2), nn.ReLU(), convolution(2, 1)
    ).eval()
    report = equalize_equivariant(model, dummy_input=torch.randn(1, 4, 5, 5))
    assert report.layers[1].roles == ("sink", "source")
    assert report.layers[1].cls_sets == (("0", "2"), ("2", "4"))
    assert report.summary.startswith("0 triplets, 2 pairs and 0 regions equalized; 0 of 3 layers left out")


def test_norms(report):
    norms = {norm.name: norm.folded_into for norm in report.norms}
    assert norms["residual.body.1"] == "residual.body.0"
    assert len(norms) == 7
    assert all(norms.values())


def test_a_norm_that_stays_is_named():
    model = nn.Sequential(convolution(1, 2), nn.ReLU(), norm(2), nn.ReLU(), convolution(2, 1)).eval()
    report = equalize_equivariant(model, dummy_input=torch.randn(1, 4, 5, 5))
    assert [(norm.name, norm.folded_into) for norm in report.norms] == [("2", "")]
    assert "not folded: batch norm 2" in str(report)


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].split()[:4] == ["layer", "kind", "blocks", "role"]
    assert lines[2].startswith("stem.0           Conv2d 3×3            3×4")
    columns = {line.index("Conv2d") for line in lines[2:9]}
    assert len(columns) == 1
    assert lines[-1] == report.summary
    assert report.summary.startswith(
        "2 triplets, 0 pairs and 2 regions equalized; 0 of 8 layers left out; 7 of 7 batch norms folded; "
    )


def test_json(report):
    read = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert read["layers"][0]["name"] == "stem.0"
    assert read["cls_sets"][0]["layers"] == ["stem.0", "depthwise.0", "depthwise.3"]
    assert read["summary"] == report.summary


def test_the_report_is_a_value(report):
    with pytest.raises(AttributeError):
        report.layers = ()
    assert hash(report) == hash(report)


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = convolution(1, 2), convolution(2, 2), convolution(2, 2)
        self.add = Add()

    def forward(self, x):
        x = self.first(x)
        return self.add(x, self.second(x))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = convolution(1, 2)

    def forward(self, x):
        return self.first(x).mean((2, 3))


def chain(*layers):
    return nn.Sequential(convolution(1, 2), *layers).eval()


@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (Branches(), "first", "its output: it is an output of the model; its input: it is the model's input"),
        (Branches(), "unused", "it is not reached from the input"),
        (Functional(), "first", "its output: it is an output of the model"),
        (
            chain(nn.Sigmoid(), convolution(2, 1)),
            "0",
            "its output: Sigmoid `1` does not commute with a positive",
        ),
        (
            chain(nn.Sigmoid(), convolution(2, 1)),
            "2",
            "its input: Sigmoid `1` does not commute with a positive",
        ),
        (chain(nn.Softsign(), convolution(2, 1)), "0", "its output: Softsign `1` joins it with the number 1"),
    ],
)
def test_reasons(model, name, reason):
    report = equalize_equivariant(model.eval(), dummy_input=torch.randn(1, 4, 5, 5))
    reasons = {layer.name: layer.reason for layer in report.left_out}
    assert reason in reasons[name]
    assert f"left out: {name}: " in str(report)


@pytest.mark.filterwarnings("ignore:.*relu6:DeprecationWarning")
def test_relu6_is_a_reason():
    report = equalize_equivariant(chain(nn.ReLU6(), convolution(2, 1)), dummy_input=torch.randn(1, 4, 5, 5))
    assert "its output: ReLU6 `1` does not commute with a positive scale" in report.layers[0].reason
    assert report.equalized == ()
