"""The networks of the table, by their settings."""

import pytest
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments import Settings, build_network, check_network, equalize, simulate


def settings(**options):
    return Settings(**{"train_images": 8, "valid_images": 8, "test_images": 8, "crop": 47, **options})


TITLES = {
    "MobileNetV2": {"model": "conventional"},
    "MobileNetV2 C4": {"group": 4},
    "MobileNetV2 C8, field-wise": {"depthwise": "field"},
    "DenseNet": {"architecture": "densenet", "model": "conventional", "group": 1},
    "DenseNet P4": {"architecture": "densenet", "group": 4},
    "DenseNet P4M": {"architecture": "densenet", "group": 4, "reflections": True},
}


@pytest.mark.parametrize("title", TITLES)
def test_networks_are_what_their_titles_say(title):
    run = settings(**{"model": "equivariant", **TITLES[title]})
    assert run.title == title
    check_network(run)
    torch.manual_seed(0)
    network = build_network(run.model, run).eval().double()
    images = torch.rand(2, 3, 47, 47, dtype=torch.float64)
    with torch.no_grad():
        logits, turned, mirrored = network(images), network(images.rot90(1, (2, 3))), network(images.flip(3))
    assert logits.shape == (2, 2)
    assert torch.allclose(logits, turned, rtol=1e-9, atol=1e-12) is (run.model == "equivariant")
    assert torch.allclose(logits, mirrored, rtol=1e-9, atol=1e-12) is title.endswith("P4M")


def test_run_names_tell_the_networks_apart():
    names = {settings(**{"model": "equivariant", **options}).run_name for options in TITLES.values()}
    assert len(names) == len(TITLES)


def test_digits_have_one_channel_and_ten_classes():
    run = settings(dataset="rotated-mnist", crop=33, model="conventional")
    assert build_network("conventional", run).eval()(torch.rand(1, 1, 33, 33)).shape == (1, 10)


def test_networks_that_can_not_be_are_refused():
    with pytest.raises(InvalidArgumentError, match=r"`width`: received 0\.1"):
        check_network(settings(width=0.1))
    with pytest.raises(InvalidArgumentError, match="`architecture`: received 'resnet'; expected one of 'mob"):
        settings(architecture="resnet")


def test_unknown_methods_are_refused():
    with pytest.raises(InvalidArgumentError, match="`method`: received 'magic'; expected one of fold, aimet"):
        equalize(torch.nn.Conv2d(1, 1, 1), torch.rand(1, 1, 3, 3), "magic")
    with pytest.raises(InvalidArgumentError, match="`weights`: received 'per-layer'; expected per-tensor or"):
        simulate(torch.nn.Conv2d(1, 1, 1), torch.rand(1, 1, 3, 3), weights="per-layer")
