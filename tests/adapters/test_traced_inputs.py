"""Several inputs and outputs, in tuples, lists, dictionaries and dataclasses, plain and typed."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch
from e2cnn import nn
from small_models import HIDDEN, IMAGE, Small, assert_exports, image, run

from eq_aimet import InvalidArgumentError, export_model

Pair = collections.namedtuple("Pair", ["scores", "map"])


@dataclasses.dataclass
class Detection:
    scores: torch.Tensor
    maps: list
    size: int = 0


OUTPUTS = {
    "tuple": lambda m, x, t: (t, m.head(t)),
    "list": lambda m, x, t: [t, m.head(t)],
    "dictionary": lambda m, x, t: {"map": t, "scores": m.head(t).mean((2, 3))},
    "nested": lambda m, x, t: {"maps": [t, (m.head(t), x)], "scores": t.mean((2, 3))},
    "named tuple": lambda m, x, t: Pair(t.mean((2, 3)), m.head(t)),
    "dataclass": lambda m, x, t: Detection(t.mean((2, 3)), [t, m.head(t)], t.shape[-1]),
    "ordered dictionary": lambda m, x, t: collections.OrderedDict(z=t, a=m.head(t)),
    "with nothing": lambda m, x, t: (t, None),
    "twice the same": lambda m, x, t: (t, t),
    "the input": lambda m, x, t: (x, t),
    "typed": lambda m, x, t: m.convolution(nn.GeometricTensor(x, IMAGE)).tensor,
}  # fmt: skip


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_keep_their_structure(kind):
    model = Small(OUTPUTS[kind])
    plain = assert_exports(model, image(), image(3))
    expected = type(model(image()))
    assert isinstance(plain(image()), dict if issubclass(expected, dict) else expected)


def test_typed_outputs_become_plain_tensors():
    model = Small(lambda m, x, t: {"fields": m.convolution(nn.GeometricTensor(x, IMAGE)), "map": t})
    outputs = export_model(model, image())(image())
    with torch.no_grad():
        assert torch.equal(outputs["fields"], model(image())["fields"].tensor)
    assert torch.equal(outputs["map"], run(model, image())["map"])


class Critic(torch.nn.Module):
    """An image and an action, as reinforcement learning has them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.R2Conv(IMAGE, HIDDEN, 3)
        self.pool = nn.GroupPooling(HIDDEN)
        self.linear = torch.nn.Linear(2 + 3, 1)
        self.eval()

    def forward(self, state, action, *, scale=1.0, bias=None):
        features = self.pool(self.convolution(nn.GeometricTensor(state, IMAGE))).tensor.amax((2, 3))
        value = scale * self.linear(torch.cat((features, action), 1))
        return value if bias is None else value + bias


def action(batch=2):
    return torch.rand(batch, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["tuple", "list", "keywords", "other order"])
def test_several_inputs(form):
    def inputs(batch):
        state, act = image(batch), action(batch)
        return {
            "tuple": (state, act),
            "list": [state, act],
            "keywords": {"state": state, "action": act},
            "other order": {"action": act, "state": state},
        }[form]

    plain = assert_exports(Critic(), inputs(2), inputs(5))
    torch.testing.assert_close(plain(image(), action()), plain(state=image(), action=action()))


def test_keyword_inputs_with_a_default():
    inputs = {"state": image(), "action": action(), "bias": torch.ones(1)}
    plain = assert_exports(Critic(), inputs)
    assert torch.equal(plain(**inputs), plain(image(), action(), torch.ones(1)))


class Matcher(torch.nn.Module):
    """Takes one dictionary, and writes its results into it, as image matchers do."""

    def __init__(self):
        super().__init__()
        self.small = Small()

    def forward(self, data):
        data.update({"batch": data["first"].size(0)})
        if data["first"].shape[2:] == data["second"].shape[2:]:
            features = self.small(torch.cat([data["first"], data["second"]], dim=0))
            data["left"], data["right"] = features.split(data["batch"])
        else:
            data["left"], data["right"] = self.small(data["first"]), self.small(data["second"])
        return torch.einsum("bchw,bcij->bhwij", data["left"], data["right"])


@pytest.mark.parametrize("size", [9, 7])
def test_a_dictionary_as_one_input(size):
    def data(batch):
        return {"first": image(batch), "second": image(batch + 1, size)[:batch]}

    model = Matcher().eval()
    plain = export_model(model, (data(2),))
    for batch in (2, 4):
        with torch.no_grad():
            torch.testing.assert_close(plain(data(batch)), model(data(batch)))


class Variadic(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.small = Small()

    def forward(self, *images, **others):
        return sum(self.small(x) for x in (*images, *others.values()))


def test_any_number_of_inputs():
    assert_exports(Variadic().eval(), (image(), 2 * image(), image() - 1))
    assert_exports(Variadic().eval(), {"left": image(), "right": 2 * image()})


def test_a_typed_input_among_others():
    class Mixed(torch.nn.Module):
        def forward(self, fields, images):
            return (fields + fields).tensor[:, :1] + images["image"]

    fields = nn.GeometricTensor(torch.rand(2, 8, 9, 9), HIDDEN)
    plain = export_model(Mixed(), (fields, {"image": image()}))
    assert torch.equal(plain(fields.tensor, {"image": image()}), Mixed()(fields, {"image": image()}))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ((), r"received 0 inputs; expected those of the model's `forward\(state, action, scale, bias\)`"),
        ((image(),), "missing a required argument: 'action'"),
        ({"state": image()}, "received the keywords state; .*missing a required argument: 'action'"),
        ({"image": image(), "action": action()}, "received the keywords image, action"),
        ((image(), action(), action()), "too many positional arguments"),
    ],
)
def test_inputs_that_forward_does_not_take(inputs, text):
    with pytest.raises(InvalidArgumentError, match=f"`dummy_input`: .*{text}"):
        export_model(Critic(), inputs)
