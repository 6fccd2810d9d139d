"""Which inputs `equalize_equivariant` takes, and in which forms a model may come."""

import copy

import pytest
import torch
from block_networks import Network, relative_change, same, weights
from torch import nn

from eq_aimet import equalize_equivariant
from eq_aimet.errors import EqualizationError, ForwardError
from eq_aimet.symmetry.calling import call_model

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


class Wrapped(nn.Module):
    """A network whose `forward` takes and returns more than tensors."""

    def __init__(self):
        super().__init__()
        self.network = Network("field")

    def forward(self, image, shift=None, *, factor=1.0, batch=None):
        output = self.network(image if batch is None else batch["image"]) * factor
        return {"logits": output if shift is None else output + shift.mean(), "factor": factor, "none": None}


@pytest.mark.parametrize(
    "inputs",
    [
        IMAGE,
        [IMAGE],
        (IMAGE, None),
        (IMAGE, IMAGE),
        {"image": IMAGE},
        {"shift": IMAGE, "image": IMAGE},
        {"image": IMAGE, "factor": 3},
        {"image": IMAGE, "factor": IMAGE[0, 0, 0, 0]},
        {"image": None, "batch": {"image": IMAGE}},
    ],
    ids=["tensor", "list", "none", "two", "name", "order", "number", "keyword", "nested"],
)
def test_inputs_and_outputs_of_all_kinds_give_one_result(inputs):
    model, alone = Wrapped().eval(), Network("field")
    before = call_model(copy.deepcopy(model).double(), as_double(inputs))["logits"].detach()
    report = equalize_equivariant(model, dummy_input=inputs, high_bias_fold="off")
    equalize_equivariant(alone, dummy_input=IMAGE, high_bias_fold="off")
    assert same(weights(model.network), weights(alone))
    assert {layer.name for layer in report.layers} >= {"network.stem.0", "network.head.3"}
    assert "forward" not in vars(model)
    assert relative_change(before, call_model(model.double(), as_double(inputs))["logits"]) <= 1e-5


def as_double(value):
    if isinstance(value, torch.Tensor):
        return value.double()
    if isinstance(value, dict):
        return {key: as_double(part) for key, part in value.items()}
    return type(value)(map(as_double, value)) if isinstance(value, (list, tuple)) else value


def inference_tensor():
    with torch.inference_mode():
        return torch.randn(2, 3, 17, 17)


@pytest.mark.parametrize(
    "image",
    [
        inference_tensor(),
        IMAGE * float("nan"),
        IMAGE * float("inf"),
        IMAGE * 0,
        IMAGE.to(memory_format=torch.channels_last),
        IMAGE[:1].expand(2, 3, 17, 17),
        IMAGE.clone().requires_grad_() * 2,
        nn.Parameter(IMAGE),
    ],
    ids=["inference", "nan", "infinite", "zero", "channels-last", "expanded", "graph", "parameter"],
)
def test_the_values_of_the_input_do_not_matter(image):
    model, expected = Network("field"), Network("field")
    equalize_equivariant(model, dummy_input=image, high_bias_fold="off")
    equalize_equivariant(expected, dummy_input=IMAGE, high_bias_fold="off")
    assert same(weights(model), weights(expected))


def compiled_inside():
    return nn.Sequential(torch.compile(Network("field"), backend="eager"))


def compiled_in_place():
    model = Network("field")
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: torch.compile(Network("field"), backend="eager"),
        compiled_inside,
        compiled_in_place,
        lambda: nn.DataParallel(Network("field")),
        lambda: torch.compile(nn.DataParallel(Network("field")), backend="eager"),
    ],
    ids=["compiled", "inside", "in-place", "parallel", "both"],
)
def test_wrappers_are_looked_through(wrap):
    model, expected = wrap(), Network("field")
    equalize_equivariant(model, dummy_input=IMAGE)
    equalize_equivariant(expected, dummy_input=IMAGE)
    inner = next(module for module in model.modules() if type(module) is Network)
    assert same(weights(inner), weights(expected))
    if isinstance(model, nn.Sequential):
        assert model[0].forward is not inner.__call__  # it is compiled as before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_of_low_precision_is_refused(dtype):
    with pytest.raises(EqualizationError, match=rf"`stem\.0\.weight` is of {dtype}.*model\.float\(\)"):
        equalize_equivariant(Network().to(dtype), dummy_input=IMAGE.to(dtype))


class Fails(Wrapped):
    def forward(self, image):
        return {}["a key"]


class ReturnsNothing(Wrapped):
    def forward(self, image):
        self.network(image)


def test_a_fault_of_forward_is_not_blamed_on_the_input():
    with pytest.raises(
        ForwardError, match=r"`forward` of Fails .*test_inputs\.py, line .*KeyError"
    ) as caught:
        equalize_equivariant(Fails(), dummy_input=IMAGE)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(
        ForwardError, match="`forward` of ReturnsNothing returned a NoneType without a tensor"
    ):
        equalize_equivariant(ReturnsNothing(), dummy_input=IMAGE)
