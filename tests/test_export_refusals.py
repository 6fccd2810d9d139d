"""What `export_model` refuses, and that its message names the place, the reason and the way round."""

from __future__ import annotations

import copy

import export_networks
import pytest
import torch
from export_networks import HIDDEN, IMAGE, convolve

from eq_aimet import EqAimetError, export_model, hookimpl, plugin_manager
from eq_aimet.adapters.e2cnn import enn
from eq_aimet.adapters.e2cnn.modules import CONVERTERS
from eq_aimet.errors import ExportError, InvalidArgumentError, PluginError
from eq_aimet.plain import GroupMaxPool

X = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))


def build(name="Residual"):
    torch.manual_seed(0)
    with torch.no_grad():
        return getattr(export_networks, name)().eval()


@pytest.mark.parametrize(
    ("model", "received"),
    [(export_networks.Residual, "type"), ({"weight": X}, "dict"), ("model.pt", "str"), (None, "NoneType")],
    ids=["class", "state dict", "path", "nothing"],
)
def test_what_is_no_model(model, received):
    with pytest.raises(
        InvalidArgumentError, match=rf"`model`: received {received}; expected a torch.nn.Module"
    ):
        export_model(model, X)


@pytest.mark.parametrize(
    "dummy_input", [None, "x", [3], X.numpy(), {"x": 3}], ids=lambda value: type(value).__name__
)
def test_what_is_no_input(dummy_input):
    received = {"list": "int", "dict": "int"}.get(type(dummy_input).__name__, type(dummy_input).__name__)
    with pytest.raises(
        InvalidArgumentError, match=rf"`dummy_input`: received {received}; expected a tensor, a tuple"
    ):
        export_model(build(), dummy_input)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision(dtype):
    with pytest.raises(
        InvalidArgumentError, match=rf"`model`: received `lift.*` in {dtype}.*Export `model.float\(\)`"
    ):
        # e2cnn's layers share their bases: a copy of the model has its own.
        export_model(copy.deepcopy(build()).to(dtype), X.to(dtype))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights(value):
    model = build()
    with torch.no_grad():
        dict(model.named_parameters())["block.1.batch_norm_[4].weight"][0] = value
    with pytest.raises(
        InvalidArgumentError, match=r"NaN or infinite values in `block\.1.*weight`.*last checkpoint"
    ):
        export_model(model, X)


def test_an_input_of_another_precision():
    with pytest.raises(
        InvalidArgumentError, match=r"a tensor of torch.float64; expected torch.float32.*dummy_input.to\("
    ):
        export_model(build(), X.double())


def test_an_input_on_another_device():
    with pytest.raises(
        InvalidArgumentError, match=r"a tensor on meta; expected one on cpu, where the model is"
    ):
        export_model(build(), X.to("meta"))


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (1, 9, 9), (2, 1)], ids=str)
def test_an_input_of_another_shape(shape):
    with pytest.raises(
        EqAimetError, match=rf"received inputs of shape {shape}".replace("(", r"\(").replace(")", r"\)")
    ):
        export_model(build(), torch.zeros(shape))


def test_the_models_own_check_of_the_shape():
    with pytest.raises(
        ExportError, match=r"fails without the export too.*line \d+.*expected a square image, received 9×7"
    ):
        export_model(build("Classifier"), X[..., :7])


@pytest.mark.parametrize("inputs", [(), (X, X, X)], ids=["none", "too many"])
def test_another_number_of_inputs(inputs):
    with pytest.raises(InvalidArgumentError, match=r"`dummy_input`: received \d inputs; expected .*forward"):
        export_model(build(), inputs)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "DataDependent",
            r"`if x.tensor.sum\(\) > 0:` decides on the values of a tensor.*one path for all data",
        ),
        ("Number", r"`return x \* float\(x.tensor.mean\(\)\)` turns a tensor into a number"),
        ("FixedBatch", r".*range\(x.shape\[0\].* turns the batch size into a fixed number.*new_zeros"),
        ("LengthOfBatch", r".*takes the `len` of a tensor.*write `x.shape\[0\]`"),
        (
            "Unregistered",
            r"`return self.hidden_modules\[0\]\(x\)` calls a SequentialModule that is no",
        ),
        (
            "Assigned",
            r"`x.tensor\[:, 0\] = 0.0` fails .*item assignment.*Write this line with torch operations",
        ),
    ],
)
def test_what_cannot_be_traced(name, text):
    with pytest.raises(
        ExportError, match=r"can't be traced: .*export_networks.py, line \d+, in body: " + text
    ):
        export_model(build(name), X)


def test_a_view_of_what_changes_in_place():
    with pytest.raises(
        ExportError, match=r"changes a tensor in place of which a view is used later.*`x = x \+ y`"
    ):
        export_model(build("SharedInPlace"), X)


def test_a_plain_tensor_where_a_field_belongs():
    with pytest.raises(
        ExportError,
        match=r"`model.block` \(SequentialModule\): received a plain tensor, expected a `GeometricTensor`",
    ):
        export_model(build("PlainIntoField"), X)


def test_a_field_of_another_type():
    with pytest.raises(
        ExportError, match=r"`model.block` \(SequentialModule\): received a field of type \[4-Rot.*irrep_0"
    ):
        export_model(build("WrongField"), X)
    model = torch.nn.Sequential(enn.R2Conv(IMAGE, HIDDEN, 3), enn.R2Conv(IMAGE, HIDDEN, 3))
    with pytest.raises(
        ExportError,
        match=r"`model.1` \(R2Conv\): received a field of type \[4-Rotations: \{regular, regular\}\]",
    ):
        export_model(model, enn.GeometricTensor(X, IMAGE))


def test_an_input_that_is_no_field_for_a_sequence():
    wide = torch.zeros(1, 5, 9, 9)
    with pytest.raises(
        InvalidArgumentError, match=r"received shape \(1, 5, 9, 9\); expected 1 channels, for the type"
    ):
        export_model(convolve(IMAGE), wide)


class Pooled(export_networks.Lifted):
    def build(self):
        self.stage = torch.nn.Sequential(enn.NormPool(HIDDEN))

    def body(self, x):
        return self.stage(x)


def test_an_unsupported_module_is_named_with_its_place(monkeypatch):
    monkeypatch.delitem(CONVERTERS, enn.NormPool)
    with pytest.raises(
        ExportError, match=r"`model.stage.0`: `NormPool` of e2cnn has no exact plain equivalent"
    ):
        export_model(Pooled(), X)


class NormPlugin:
    """A third party's plugin."""

    def __init__(self, result):
        self.result = result

    @hookimpl
    def eq_aimet_export_module(self, module):
        return self.result if isinstance(module, enn.NormPool) else None


@pytest.fixture
def register():
    plugins = []

    def register(plugin):
        plugins.append(plugin)
        plugin_manager().register(plugin)

    yield register
    for plugin in plugins:
        plugin_manager().unregister(plugin)


def test_a_plugin_exports_it_instead(monkeypatch, register):
    monkeypatch.delitem(CONVERTERS, enn.NormPool)
    register(NormPlugin(GroupMaxPool(4)))
    plain = export_model(Pooled().eval(), X)
    assert isinstance(plain.get_submodule("stage.0"), GroupMaxPool)
    assert plain(X).shape == (2, 2, 9, 9)


def test_a_plugin_that_returns_a_module_of_other_channels(register):
    register(NormPlugin(torch.nn.AvgPool2d(3)))
    with pytest.raises(
        ExportError, match=r"`model.stage.0` \(NormPool\): its plain module returns 8 channels, .* has 2"
    ):
        export_model(Pooled().eval(), X)


def test_a_plugin_that_returns_something_else(register):
    register(NormPlugin("a module"))
    with pytest.raises(
        PluginError, match=r"`model.stage.0`: `eq_aimet_export_module` of the plugin `NormPlugin` returned"
    ):
        export_model(Pooled(), X)


def test_a_refusal_leaves_the_model_as_it_was():
    model = build("DataDependent").train()
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}
    initialize = enn.GeometricTensor.__init__
    with pytest.raises(ExportError):
        export_model(model, X)
    assert all(module.training for module in model.modules())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == {
        name: set(values) for name, values in attributes.items()
    }
    assert enn.GeometricTensor.__init__ is initialize
