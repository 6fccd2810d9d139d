"""A third party's plugins, as they would write them."""

import copy

import pytest
import torch
from block_networks import Network, relative_change
from torch import nn

from eq_aimet import equalize_equivariant, hookimpl, layer_blocks, plugin_manager
from eq_aimet.errors import EqualizationError, PluginError
from eq_aimet.symmetry import LayerBlocks

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def register():
    manager, plugins = plugin_manager(), []

    def register_plugin(plugin):
        plugins.append(plugin)
        manager.register(plugin)

    yield register_plugin
    for plugin in plugins:
        manager.unregister(plugin)


class QuaternionConv2d(nn.Conv2d):
    """A hand-written layer whose channels come in fours."""


class Quaternions:
    @hookimpl
    def eq_aimet_layer_blocks(self, module):
        if isinstance(module, QuaternionConv2d):
            return LayerBlocks((4,) * (module.in_channels // 4), (4,) * (module.out_channels // 4))
        return None


def quaternion_network():
    torch.manual_seed(0)
    return nn.Sequential(
        QuaternionConv2d(4, 8, 1),
        nn.ReLU(),
        QuaternionConv2d(8, 8, 3, groups=2),
        nn.ReLU(),
        QuaternionConv2d(8, 4, 1),
    ).eval()


def test_a_plugin_gives_blocks(register):
    model, x = quaternion_network(), torch.randn(1, 4, 5, 5)
    with pytest.raises(EqualizationError, match="carries rotation blocks"):
        equalize_equivariant(model, dummy_input=x)
    register(Quaternions())
    assert layer_blocks(model[0]).blocks_out == (4, 4)
    before = copy.deepcopy(model)
    report = equalize_equivariant(model, dummy_input=x)
    with torch.no_grad():
        assert relative_change(before(x), model(x)) <= 1e-6
    assert report.cls_sets[0].layers == ("0", "2", "4")
    assert report.cls_sets[0].blocks == (4, 4)
    scales = (before[0].weight / model[0].weight)[:, 0].reshape(2, 4)
    assert torch.allclose(scales, scales[:, :1].expand(2, 4))
    assert not torch.allclose(scales[0], scales[1])


class KeepsTheFirstSet:
    @hookimpl
    def eq_aimet_cls_sets(self, model, cls_sets):
        del cls_sets[1:]


def test_a_plugin_removes_a_cls_set(register):
    register(KeepsTheFirstSet())
    model, untouched = Network("field"), Network("field")
    report = equalize_equivariant(model, dummy_input=IMAGE)
    assert [cls_set.layers[0] for cls_set in report.cls_sets] == ["stem.0"]
    reasons = {layer.name: layer.reason for layer in report.left_out}
    assert reasons["residual.body.3"] == "its CLS set was dropped: a plugin took it out"
    assert torch.equal(model.residual.body[6].weight.abs() > 0, untouched.residual.body[6].weight.abs() > 0)


class Listens:
    def __init__(self):
        self.heard = []

    @hookimpl
    def eq_aimet_equalized(self, model, report):
        self.heard.append((model, report))


def test_a_plugin_hears_of_it(register):
    listener = Listens()
    register(listener)
    model = Network()
    report = equalize_equivariant(model, dummy_input=IMAGE)
    assert len(listener.heard) == 1
    assert listener.heard[0][0] is model
    assert listener.heard[0][1] is report


def adding(make_set):
    class Adds:
        @hookimpl
        def eq_aimet_cls_sets(self, model, cls_sets):
            cls_sets.append(make_set(model))

    return Adds()


@pytest.mark.parametrize(
    ("make_set", "text"),
    [
        (lambda model: 5, "it is 5"),
        (lambda model: torch.ones(2), "it is tensor"),
        (lambda model: (model.stem[0],), "it is "),
        (lambda model: (torch.ones(2), model.stem[0]), "tensor.* is not a convolution"),
        (lambda model: (model.stem[0], model.stem[2]), r"ReLU\(\) is not a convolution"),
        (lambda model: (model.stem[0], nn.Conv2d(12, 4, 1)), r"Conv2d.* is not a layer of the model"),
        (lambda model: (model.stem[0], model.depthwise[0]), "its sink Conv2d.* is grouped"),
        (
            lambda model: (model.stem[0], model.last[0], model.last[0]),
            "its middle layer Conv2d.* is not depthwise",
        ),
        (lambda model: (model.last[0], model.depthwise[3]), "Conv2d.* gives 16 channels to"),
    ],
)
def test_a_plugins_cls_set_is_checked(register, make_set, text):
    register(adding(make_set))
    model = Network("field")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        PluginError, match=f"`eq_aimet_cls_sets` of the plugin `Adds` .*can't be scaled: {text}"
    ):
        equalize_equivariant(model, dummy_input=IMAGE)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_plugins_set_that_changes_the_function_is_undone(register):
    register(adding(lambda model: (model.depthwise[3], model.last[0])))  # the residual sum is in between
    model = Network("field")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(EqualizationError, match="`eq_aimet_cls_sets` of `Adds` has added CLS sets"):
        equalize_equivariant(model, dummy_input=IMAGE)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class ReplacesBlocks:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def eq_aimet_layer_blocks(self, module):
        return self.answer if isinstance(module, QuaternionConv2d) else None


@pytest.mark.parametrize("answer", [4, (4, 4), LayerBlocks((4,), (4,))])
def test_a_plugins_blocks_are_checked(register, answer):
    register(ReplacesBlocks(answer))
    model = quaternion_network()
    with pytest.raises(PluginError, match="`eq_aimet_layer_blocks` of the plugin `ReplacesBlocks` returned"):
        equalize_equivariant(model, dummy_input=torch.randn(1, 4, 5, 5))


def test_a_plugin_with_a_name_is_called_by_it(register):
    plugin = ReplacesBlocks(4)
    plugin_manager().register(plugin, "quaternions")
    try:
        with pytest.raises(PluginError, match="of the plugin `quaternions` returned a int"):
            layer_blocks(QuaternionConv2d(4, 4, 1))
    finally:
        plugin_manager().unregister(plugin)
