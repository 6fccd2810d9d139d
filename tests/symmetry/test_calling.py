"""Models are called on tensors, tuples and dictionaries, and each tensor of an output has a name."""

import collections
import dataclasses

import pytest
import torch

from eq_aimet.symmetry.calling import as_arguments, call_model, map_tensors, named_tensors, tensors_in

Pair = collections.namedtuple("Pair", ["first", "second"])
A, B = torch.tensor([1.0]), torch.tensor([2.0])


@dataclasses.dataclass(frozen=True)
class Detection:
    scores: torch.Tensor
    boxes: list
    label: str = "cell"


class Difference(torch.nn.Module):
    def forward(self, left, right):
        return left - right


@pytest.mark.parametrize("inputs", [(A, B), [A, B], {"left": A, "right": B}, {"right": B, "left": A}])
def test_inputs_reach_the_model_in_their_places(inputs):
    assert call_model(Difference(), inputs).item() == -1.0


def test_one_tensor_is_one_argument():
    assert as_arguments(A) == ((A,), {})
    assert call_model(torch.nn.Identity(), A) is A


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (A, ["output"]),
        ((A, B), ["0", "1"]),
        ([A, [B]], ["0", "1.0"]),
        ({"a": A, "b": (B, None)}, ["a", "b.0"]),
        (collections.OrderedDict(z=A, a=B), ["z", "a"]),
        (Pair(A, B), ["first", "second"]),
        (Detection(A, [B, B]), ["scores", "boxes.0", "boxes.1"]),
        ((1, "x", None), []),
    ],
)
def test_each_tensor_has_the_name_of_its_place(outputs, names):
    assert list(named_tensors(outputs)) == names
    assert len(tensors_in(outputs)) == len(names)


@pytest.mark.parametrize(
    "value",
    [
        A,
        (A, B),
        [A],
        {"a": A},
        collections.OrderedDict(a=A),
        Pair(A, B),
        Detection(A, [B]),
        (A, 3, {"b": [B]}),
    ],
)
def test_mapping_keeps_the_structure(value):
    doubled = map_tensors(lambda tensor: 2 * tensor, value)
    assert type(doubled) is type(value)
    expected = {name: 2 * tensor for name, tensor in named_tensors(value).items()}
    assert named_tensors(doubled) == expected
