"""Unfit arguments of `export_model`, plugins and errors of the user's own code: one clear error each."""

from __future__ import annotations

import pytest
import torch
from e2cnn import nn
from small_models import Small, image, run

from eq_aimet import ExportError, InvalidArgumentError, PluginError, export_model, hookimpl, layer_blocks
from eq_aimet import plugin_manager as manager
from eq_aimet.symmetry import LayerBlocks

UNFIT_INPUTS = {
    "nothing": (None, "received NoneType"),
    "a number": (3, "received int"),
    "nothing in a tuple": ((image(), None), "received NoneType"),
    "an empty dictionary": ({"x": {}}, "received an empty dict"),
    "meta": (image().to("meta"), "a tensor on meta.*Give a tensor with values"),
    "sparse": (image().to_sparse(), "received a sparse tensor"),
    "quantized": (
        lambda: torch.quantize_per_tensor(image(), 0.1, 0, torch.quint8),
        "received a quantized tensor",
    ),
    "complex": (image().to(torch.complex64), "a tensor of torch.complex64; expected torch.float32"),
    "half": (image().half(), "a tensor of torch.float16; expected torch.float32"),
    "no images": (image()[:0], r"an empty tensor of shape \(0, 1, 9, 9\)"),
    "no pixels": (image()[..., :0], "an empty tensor"),
}


@pytest.mark.parametrize("name", UNFIT_INPUTS)
def test_unfit_inputs(name):
    value, text = UNFIT_INPUTS[name]
    with pytest.raises(InvalidArgumentError, match=f"`dummy_input`: .*{text}"):
        export_model(Small(), value() if callable(value) else value)


FIT_INPUTS = {
    "inference": lambda: torch.inference_mode()(image)(),
    "with gradients": lambda: image().requires_grad_(),
    "a parameter": lambda: torch.nn.Parameter(image()),
    "channels last": lambda: image().to(memory_format=torch.channels_last),
    "not contiguous": lambda: image().transpose(2, 3),
}


@pytest.mark.parametrize("name", FIT_INPUTS)
def test_fit_inputs(name):
    plain = export_model(
        Small(lambda m, x, t: x.add_(1) + t),
        FIT_INPUTS[name](),
    )
    assert not any(parameter.is_inference() for parameter in plain.parameters())
    expected = run(Small(lambda m, x, t: x + 1 + t), image())
    torch.testing.assert_close(run(plain, image()), expected)


def test_export_in_inference_mode_gives_trainable_weights():
    with torch.inference_mode():
        plain = export_model(Small(), image())
    plain(image()).sum().backward()


def test_weights_without_values():
    with pytest.raises(InvalidArgumentError, match=r"`model`: received `.*` on the meta device.*Load"):
        export_model(torch.nn.Linear(2, 2, device="meta"), torch.rand(1, 2))
    with pytest.raises(InvalidArgumentError, match=r"`model`: received `weight` without a shape.*Run"):
        export_model(torch.nn.LazyLinear(2), torch.rand(1, 2))


FAULTS = {
    "KeyError": lambda m, x, t: {"a": t}["b"],
    "AttributeError": lambda m, x, t: t + m.missing,
    "NotImplementedError": lambda m, x, t: (_ for _ in ()).throw(NotImplementedError("some day")),
    "ZeroDivisionError": lambda m, x, t: t * (1 / 0),
    "NameError": lambda m, x, t: t + undefined,  # noqa: F821
    "ValueError": lambda m, x, t: (_ for _ in ()).throw(ValueError("choose a task first")),
    "TypeError": lambda m, x, t: t + None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_of_forward_are_quoted_with_their_place_and_blame_nothing_else(fault):
    with pytest.raises(ExportError, match=rf"line \d+, in <.*{fault}") as caught:
        export_model(Small(FAULTS[fault]), image())
    assert not isinstance(caught.value, InvalidArgumentError)


class Plugin:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def eq_aimet_export_module(self, module):
        return self.answer(module) if isinstance(module, torch.nn.Conv2d) else None

    @hookimpl
    def eq_aimet_layer_blocks(self, module):
        return self.answer(module) if isinstance(module, torch.nn.Conv2d) else None


@pytest.fixture
def register():
    plugins = []

    def register_plugin(answer):
        plugins.append(Plugin(answer))
        manager().register(plugins[-1])

    yield register_plugin
    for plugin in plugins:
        manager().unregister(plugin)


def fail(module):
    raise KeyError("my table")


EXPORTS = {
    "text": (lambda module: "junk", "returned a str for a Conv2d"),
    "a class": (lambda module: torch.nn.ReLU, "returned a type for a Conv2d"),
    "itself": (lambda module: module, "returned a module that shares its weights"),
    "a field module": (
        lambda module: nn.ReLU(nn.FieldType(nn_space(), [nn_space().trivial_repr])),
        "returned a module with a ReLU in it",
    ),
    "an error": (fail, r"fails for a Conv2d at .*line \d+, in fail: .*KeyError: 'my table'"),
}


def nn_space():
    from small_models import SPACE

    return SPACE


@pytest.mark.parametrize("name", EXPORTS)
def test_junk_of_a_plugin_is_one_error_that_names_the_hook(name, register):
    answer, text = EXPORTS[name]
    register(answer)
    with pytest.raises(
        PluginError, match=rf"`model.head`: `eq_aimet_export_module` of the plugin `Plugin` {text}"
    ):
        export_model(Small(lambda m, x, t: m.head(t)), image())


BLOCKS = {
    "a tuple": (lambda module: (4, 4), "returned a tuple for a Conv2d; expected a LayerBlocks"),
    "too many": (
        lambda module: LayerBlocks((4,), (4, 4)),
        "returned blocks of 4 input and 8 output",
    ),
    "an error": (fail, "fails for a Conv2d at .*KeyError: 'my table'"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_junk_blocks_of_a_plugin(name, register):
    answer, text = BLOCKS[name]
    register(answer)
    with pytest.raises(PluginError, match=f"`eq_aimet_layer_blocks` of the plugin `Plugin` {text}"):
        layer_blocks(torch.nn.Conv2d(4, 4, 1))
