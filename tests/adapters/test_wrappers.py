"""Wrappers that change how a model runs are taken off; TorchScript is refused by name."""

from __future__ import annotations

import pytest
import torch
from small_models import Small, image, run

from eq_aimet import ExportError, InvalidArgumentError, export_model

WRAPPERS = {
    "compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": lambda model: torch.nn.DataParallel(model),
    "both": lambda model: torch.compile(torch.nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_exported_by_its_own_names(wrapper):
    expected = export_model(Small(), image())
    plain = export_model(WRAPPERS[wrapper](Small()), image())
    assert list(plain.state_dict()) == list(expected.state_dict())
    assert torch.equal(plain(image()), expected(image()))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_part_of_a_model(wrapper):
    model = torch.nn.Sequential(WRAPPERS[wrapper](Small()), torch.nn.ReLU()).eval()
    expected = torch.nn.Sequential(Small(), torch.nn.ReLU()).eval()
    assert torch.equal(export_model(model, image())(image()), export_model(expected, image())(image()))


def test_a_model_that_was_compiled_in_place():
    model = Small()
    model.compile(backend="eager")
    model.head.compile(backend="eager")
    assert torch.equal(export_model(model, image())(image()), export_model(Small(), image())(image()))


def test_a_compiled_function_in_forward():
    @torch.compile(backend="eager")
    def double(t):
        return 2 * t

    plain = export_model(Small(lambda model, x, t: double(t)), image())
    torch.testing.assert_close(plain(image()), 2 * run(Small(), image())["output"])


def test_hooks_on_a_wrapper_are_refused_by_name():
    model = torch.nn.DataParallel(Small())
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(ExportError, match=r"a DataParallel has forward hooks.*on the model inside"):
        export_model(model, image())


def test_torchscript_is_refused_by_name():
    scripted = torch.jit.trace(torch.nn.ReLU(), image())
    with pytest.raises(InvalidArgumentError, match=r"`model`: received a module of TorchScript"):
        export_model(scripted, image())
    with pytest.raises(ExportError, match=r"`model.1` is a module of TorchScript, which can't be traced"):
        export_model(torch.nn.Sequential(torch.nn.ReLU(), scripted), image())
