"""Forward hooks, parametrizations and replaced `forward`s: followed, or refused by name; never dropped."""

from __future__ import annotations

import types

import pytest
import torch
from e2cnn import nn
from small_models import HIDDEN, Small, assert_exports, image, run

from eq_aimet import ExportError, export_model

register = torch.nn.utils.parametrize.register_parametrization


def small():
    return Small(lambda model, x, t: model.head(t) + model.gain)


def typed_double(module, inputs, output):
    return nn.GeometricTensor(2 * output.tensor, output.type)


HOOKS = {
    "the model": lambda m: m.register_forward_hook(lambda module, inputs, output: 2 * output),
    "before the model": lambda m: m.register_forward_pre_hook(lambda module, inputs: (inputs[0] - 0.5,)),
    "a keyword hook": lambda m: m.register_forward_hook(
        lambda module, args, kwargs, output: output + args[0].mean(), with_kwargs=True
    ),
    "before, with keywords": lambda m: m.register_forward_pre_hook(
        lambda module, args, kwargs: ((args[0] * 3,), kwargs), with_kwargs=True
    ),
    "a torch layer": lambda m: m.head.register_forward_hook(lambda module, inputs, output: output.relu()),
    "before a torch layer": lambda m: m.head.register_forward_pre_hook(lambda module, inputs: inputs[0] + 1),
    "a field layer": lambda m: m.convolution.register_forward_hook(typed_double),
    "before a field layer": lambda m: m.pool.register_forward_pre_hook(
        lambda module, inputs: (nn.GeometricTensor(-inputs[0].tensor, inputs[0].type),)
    ),
    "one that returns nothing": lambda m: m.head.register_forward_hook(lambda module, inputs, output: None),
    "one that keeps results": lambda m: m.head.register_forward_hook(
        lambda module, inputs, output: setattr(module, "seen", output.detach())
    ),
    "two of them": lambda m: [
        m.head.register_forward_hook(lambda module, inputs, output: output + 1),
        m.head.register_forward_hook(lambda module, inputs, output: output * 2),
    ],
    "always called": lambda m: m.head.register_forward_hook(
        lambda module, inputs, output: output * 2, always_call=True
    ),
    "a parameter of its own": lambda m: m.head.register_forward_hook(
        lambda module, inputs, output: output * m.gain
    ),
    "backward": lambda m: m.head.register_full_backward_hook(lambda module, into, out: None),
}  # fmt: skip


@pytest.mark.parametrize("where", HOOKS)
def test_hooks_are_followed(where):
    model = small()
    before = run(small(), image())["output"]
    HOOKS[where](model)
    plain = assert_exports(model, image(), image(3))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())
    changes = where not in ("one that returns nothing", "one that keeps results", "backward")
    assert torch.equal(run(model, image())["output"], before) is not changes


def test_hooks_on_containers():
    model = small()
    model.stages = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1), nn_block())
    model.tail = lambda m, x, t: m.stages(t)
    model.stages.register_forward_hook(lambda module, inputs, output: 2 * output)
    model.stages[1].register_forward_pre_hook(lambda module, inputs: (inputs[0].abs(),))
    model.stages[1][0].register_forward_hook(lambda module, inputs, output: output - 1)
    assert_exports(model.eval(), image(), image(3))


def nn_block():
    return torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.ReLU())


def test_a_hook_on_a_module_that_is_the_whole_model():
    model = nn.R2Conv(HIDDEN, HIDDEN, 3).eval()
    model.register_forward_hook(typed_double)
    x = torch.rand(1, 8, 5, 5)
    expected = model(nn.GeometricTensor(x, HIDDEN)).tensor
    torch.testing.assert_close(export_model(model, x)(x), expected)


def test_a_global_hook_is_followed():
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: 2 * output if isinstance(module, torch.nn.Conv2d) else None
    )
    try:
        plain = export_model(small(), image())
        expected = run(small(), image())["output"]
    finally:
        handle.remove()
    torch.testing.assert_close(run(plain, image())["output"], expected)


def test_a_hook_that_decides_on_values_is_refused_with_its_place():
    model = small()
    model.head.register_forward_hook(lambda module, inputs, output: output if output.sum() > 0 else -output)
    with pytest.raises(ExportError, match=r"test_hooks_and_param.*, line \d+, in <lambda>.*decides on"):
        export_model(model, image())


def test_a_hook_that_fails_is_quoted_with_its_place():
    def fail(module, inputs, output):
        raise KeyError("my own hook")

    model = small()
    model.pool.register_forward_hook(fail)
    with pytest.raises(ExportError, match=r"in fail: .*KeyError: 'my own hook'"):
        export_model(model, image())


NORMS = {
    "weight_norm": lambda m: torch.nn.utils.weight_norm(m.head),
    "spectral_norm": lambda m: torch.nn.utils.spectral_norm(m.head),
    "new weight_norm": lambda m: torch.nn.utils.parametrizations.weight_norm(m.head),
    "new spectral_norm": lambda m: torch.nn.utils.parametrizations.spectral_norm(m.head),
    "own parametrization": lambda m: register(
        m.head, "weight", torch.nn.Softplus()
    ),
    "of a bias": lambda m: register(m.head, "bias", torch.nn.Tanh()),
    "of two": lambda m: [
        register(m.head, name, torch.nn.Tanh())
        for name in ("weight", "bias")
    ],
    "of a field layer": lambda m: register(
        m.convolution, "weights", torch.nn.Tanh()
    ),
    "weight_norm of a field layer": lambda m: torch.nn.utils.weight_norm(m.convolution, "weights", dim=None),
    "weight_norm and a hook": lambda m: [
        torch.nn.utils.weight_norm(m.head),
        m.head.register_forward_hook(lambda module, inputs, output: output * 2),
    ],
}  # fmt: skip


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("norm", NORMS)
def test_normed_weights_become_plain_weights(norm, training):
    model = small()
    NORMS[norm](model)
    model.train().eval()
    expected = run(model, image())["output"]
    plain = export_model(model.train(training), image())
    torch.testing.assert_close(run(plain, image())["output"], expected)
    assert type(plain.head) is torch.nn.Conv2d
    assert set(dict(plain.head.named_parameters())) == {"weight", "bias"}


def test_a_torch_module_with_a_replaced_forward_is_traced():
    model = small()
    model.head.forward = types.MethodType(lambda self, x: 2 * torch.nn.Conv2d.forward(self, x), model.head)
    assert_exports(model, image())


def test_a_field_module_with_a_replaced_forward_is_refused_by_name():
    model = small()
    original = model.convolution.forward
    model.convolution.forward = lambda x: original(x)
    with pytest.raises(ExportError, match=r"`model.convolution` \(R2Conv\): its `forward` was replaced"):
        export_model(model, image())
