import json
import math

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures import Predictions, choose_examples, measure_predictions


def predictions(right):
    """Predictions of class 0 or, where wrong, 1."""
    return Predictions(tuple(0 if good else 1 for good in right), (0.75,) * len(right), (0,) * len(right))


def test_the_class_is_the_largest_logits_and_the_probability_its_softmax():
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0], [0.0, math.log(9.0)]])
    found = measure_predictions(torch.nn.Identity(), logits, torch.tensor([1, 1, 0]), batch_size=2)
    assert found.classes == (1, 0, 1)
    assert found.probabilities == pytest.approx((0.75, 0.8, 0.9))
    assert found.right == (True, False, False)
    assert json.loads(json.dumps(found.to_dict()))["right"] == [True, False, False]


def test_examples_are_the_first_right_and_the_first_wrong_ones():
    found = predictions([True, True, False, True, False, True, False, True])
    assert choose_examples({"a": found}, 4) == (0, 1, 2, 4)
    assert choose_examples({"a": found}, 3) == (0, 1, 2)
    assert choose_examples({"a": found}, 100) == tuple(range(8))


def test_an_image_is_wrong_if_any_model_is():
    found = {"a": predictions([True, True, True, False]), "b": predictions([False, True, True, True])}
    assert choose_examples(found, 2) == (0, 1)


@pytest.mark.parametrize(("right", "expected"), [([True] * 6, (0, 1, 2, 3)), ([False] * 6, (0, 1, 2, 3))])
def test_where_one_kind_is_missing_the_other_fills_up(right, expected):
    assert choose_examples({"a": predictions(right)}, 4) == expected


def test_a_rare_kind_is_shown_as_far_as_it_goes():
    assert choose_examples({"a": predictions([True] * 6 + [False])}, 4) == (0, 1, 2, 6)
    assert choose_examples({"a": predictions([False] * 6 + [True])}, 4) == (0, 1, 2, 6)


def test_unfit_arguments_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"`labels`: received shape \(2,\) for 3 images"):
        measure_predictions(torch.nn.Identity(), torch.rand(3, 2), torch.tensor([0, 1]))
    with pytest.raises(InvalidArgumentError, match="at least one image"):
        measure_predictions(torch.nn.Identity(), torch.rand(0, 2), torch.tensor([]))
    with pytest.raises(InvalidArgumentError, match="`predictions`: received no model"):
        choose_examples({}, 4)
    with pytest.raises(InvalidArgumentError, match="2 models on different images"):
        choose_examples({"a": predictions([True]), "b": predictions([True, True])}, 4)
    with pytest.raises(InvalidArgumentError, match="`count`: received 0"):
        choose_examples({"a": predictions([True])}, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_answers_that_are_not_finite_are_refused(value):
    logits = torch.tensor([[0.0, value], [2.0, 0.0]])
    with pytest.raises(InvalidArgumentError, match=r"`model`: .* one that is not finite"):
        measure_predictions(torch.nn.Identity(), logits, torch.tensor([1, 1]))
