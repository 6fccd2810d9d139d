"""Casts and constants in `forward`: the export computes the same, in float64 too; float16 is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from small_models import Small, assert_exports, image, run

from eq_aimet import ExportError, export_model

CASTS = {
    "float": lambda m, x, t: m.head(t.float()),
    "to float32": lambda m, x, t: m.head(t.to(torch.float32)),
    "to keyword": lambda m, x, t: m.head(t.to(dtype=torch.float32, device="cpu")),
    "type": lambda m, x, t: m.head(t.type(torch.FloatTensor)),
    "type by name": lambda m, x, t: m.head(t.type("torch.FloatTensor")),
    "type_as": lambda m, x, t: m.head(t.type_as(x)),
    "to own dtype": lambda m, x, t: m.head(t.to(t.dtype)),
    "to the weight's": lambda m, x, t: m.head(t.to(m.head.weight.dtype).to(m.head.weight.device)),
    "to another tensor": lambda m, x, t: m.head(t.to(x)),
    "cpu": lambda m, x, t: m.head(t.cpu().detach()),
    "mask": lambda m, x, t: m.head(t * (x > 0.5).float()),
    "mask alone": lambda m, x, t: m.head((t > 0.5).float()),
    "integers": lambda m, x, t: m.head((4 * t).round().long().to(t.dtype)),
    "zeros": lambda m, x, t: t + torch.zeros((1, 1, 9, 9)),
    "arange": lambda m, x, t: m.head(t * torch.arange(9).float()),
    "linspace": lambda m, x, t: m.head(t + torch.linspace(0, 1, 9)),
    "matrix": lambda m, x, t: t @ torch.eye(9),
    "tensor": lambda m, x, t: m.head(t * torch.tensor([2.0, 3.0]).view(1, -1, 1, 1)),
    "as_tensor": lambda m, x, t: m.head(t * torch.as_tensor(0.5)),
    "ones_like": lambda m, x, t: m.head(t + torch.ones_like(t)),
    "new_tensor": lambda m, x, t: m.head(t * t.new_tensor([1.0, 2.0])[:, None, None]),
    "batch of zeros": lambda m, x, t: m.head(t + torch.zeros(t.shape[0], 1, 1, 1)),
    "linear of zeros": lambda m, x, t: m.head(torch.zeros(t.shape[0], 2, 3, 3)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Converting a tensor:UserWarning")
@pytest.mark.parametrize("cast", CASTS)
def test_the_export_computes_the_same_and_converts_to_float64(cast):
    plain = assert_exports(Small(CASTS[cast]), image(), image(3))
    single = run(plain, image())["output"]
    double = run(copy.deepcopy(plain).double(), image(dtype=torch.float64))["output"]
    assert double.dtype is torch.float64
    torch.testing.assert_close(double.float(), single)


@pytest.mark.parametrize("cast", ["none", "to own dtype", "mask", "zeros", "ones_like", "type_as"])
def test_a_source_in_float64_is_exported_exactly(cast):
    tail = {"none": lambda m, x, t: t, **CASTS}[cast]
    model = copy_in_double(Small(tail))
    plain = assert_exports(model, image(dtype=torch.float64), image(3, dtype=torch.float64), tolerance=1e-12)
    assert {value.dtype for value in plain.parameters()} == {torch.float64}


def copy_in_double(model):
    from eq_aimet.symmetry.copying import copy_module

    return copy_module(model).double().train().eval()


def test_a_detour_through_float64_stays():
    model = Small(lambda m, x, t: m.head((t.double() + 1e9 - 1e9).float()))
    plain = assert_exports(model, image(), image(3))
    assert run(copy.deepcopy(plain).double(), image(dtype=torch.float64))["output"].dtype is torch.float64


LOW = {
    "half": lambda m, x, t: t.half().float(),
    "bfloat16": lambda m, x, t: t.bfloat16().float(),
    "to": lambda m, x, t: t.to(torch.float16).float(),
    "new": lambda m, x, t: t + torch.zeros(t.shape[0], 1, 1, 1, dtype=torch.half),
}


@pytest.mark.parametrize("cast", LOW)
def test_low_precision_is_refused_by_name(cast):
    with pytest.raises(
        ExportError, match=r"test_casts.py, line .*computes in torch.b?float16.*remove the cast"
    ):
        export_model(Small(LOW[cast]), image())


def test_autocast_is_refused_by_name():
    def tail(model, x, t):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model.head(t).float()

    with pytest.raises(ExportError, match=r"computes in torch.bfloat16.*autocast"):
        export_model(Small(tail), image())
