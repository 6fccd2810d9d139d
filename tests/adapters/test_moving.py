"""Weights of e2cnn in escnn: carried over through the filters, or loaded with their own basis."""

from __future__ import annotations

import copy

import pytest
import torch
from equivariant_networks import NETWORKS
from library_kits import E2CNN, ESCNN
from module_cases import randomise

from eq_aimet import carry_weights
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models import EquivariantDenseNet, EquivariantMobileNetV2

OPTIONS = {"width": 0.25, "group": 4, "input_size": 33}
MODELS = {
    "MobileNetV2": lambda library: EquivariantMobileNetV2(**OPTIONS, library=library),
    "field-wise": lambda library: EquivariantMobileNetV2(**OPTIONS, depthwise="field", library=library),
    "DenseNet": lambda library: EquivariantDenseNet(**OPTIONS, library=library),
}


def outputs_differ(source, target, x):
    with torch.no_grad():
        expected, actual = source(x), target(x)
    assert float(expected.std()) > 0
    return float((expected - actual).abs().max() / expected.abs().max())


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_our_networks_compute_the_same(build):
    source, target = randomise(build("e2cnn")), build("escnn").train().eval()
    assert sum(p.numel() for p in source.parameters()) == sum(p.numel() for p in target.parameters())
    x = torch.randn(2, 3, 33, 33)
    assert outputs_differ(source, target, x) > 1e-2
    carry_weights(source, target)
    assert outputs_differ(source, target, x) <= 1e-5


@pytest.mark.parametrize("cls", NETWORKS, ids=lambda cls: cls.__name__)
def test_users_networks_compute_the_same(cls):
    source, target = randomise(cls(E2CNN)), cls(ESCNN).train().eval()
    carry_weights(source, target)
    assert outputs_differ(source, target, torch.randn(2, cls.channels, cls.size, cls.size)) <= 1e-5


def convolution(kit, kernel_size, **options):
    fields = kit.regular(kit.c4, 1)
    return kit.enn.R2Conv(fields, fields, kernel_size, **options).eval()


def test_a_basis_that_misses_a_part_is_named_and_nothing_changes():
    source = convolution(E2CNN, 5, frequencies_cutoff=9.0)
    target = convolution(ESCNN, 5)
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(InvalidArgumentError, match=r"`target`: .*basis misses up to .* of the filter"):
        carry_weights(source, target)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (lambda: convolution(E2CNN, 3), lambda: convolution(ESCNN, 5), r"filter of shape \(4, 4, 5, 5\)"),
        (lambda: convolution(ESCNN, 3), lambda: convolution(E2CNN, 3), "`source`: received .* of escnn"),
        (lambda: convolution(E2CNN, 3), lambda: convolution(E2CNN, 3), "`target`: received .* of e2cnn"),
        (lambda: convolution(E2CNN, 3), torch.nn.ReLU, "`target`: received .* neither library"),
        (lambda: None, lambda: convolution(ESCNN, 3), "`source`: received .* neither library"),
        (
            lambda: E2CNN.enn.SequentialModule(convolution(E2CNN, 3)),
            lambda: convolution(ESCNN, 3),
            "`source` has no convolution of this name",
        ),
    ],
    ids=["shape", "swapped", "both e2cnn", "no library", "nothing", "names"],
)
def test_networks_that_do_not_fit_are_refused(source, target, message):
    with pytest.raises(InvalidArgumentError, match=message):
        carry_weights(source(), target())


def test_a_state_dict_of_the_other_library_changes_no_other_network():
    """e2cnn and escnn store their bases under the same names, and escnn shares one basis in a process."""
    source, target, other = (MODELS["MobileNetV2"](name) for name in ("e2cnn", "escnn", "escnn"))
    x = torch.randn(2, 3, 33, 33)
    randomise(source)
    other.eval()
    before = other(x)
    target.eval().load_state_dict(source.state_dict())
    assert outputs_differ(source, target, x) <= 1e-5
    assert torch.equal(other.train().eval()(x), before)
