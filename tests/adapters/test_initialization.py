"""He initialisation and fast construction give what e2cnn gives, bit by bit."""

from __future__ import annotations

import copy

import pytest
import torch
from e2cnn.nn import init
from e2cnn.nn.modules.r2_conv import basisexpansion_singleblock

from eq_aimet.adapters.e2cnn import build_batch_norm, build_convolution, enn, generalized_he_init, gspaces
from eq_aimet.adapters.e2cnn.expansion import LazyBlocksBasisExpansion
from eq_aimet.adapters.e2cnn.initialization import he_deviations


def _types(gspace, *names):
    fields = {"trivial": gspace.trivial_repr, "regular": gspace.regular_repr, "irrep": gspace.irreps_of_one()}
    return enn.FieldType(gspace, [fields[name] for name in names])


def _cyclic(order):
    gspace = gspaces.Rot2dOnR2(order)
    gspace.irreps_of_one = lambda: gspace.irrep(1)
    return gspace


def _dihedral(order):
    gspace = gspaces.FlipRot2dOnR2(order)
    gspace.irreps_of_one = lambda: gspace.irrep(1, 1)
    return gspace


MIXED = ("trivial", "regular", "irrep", "regular", "trivial")
SORTED = ("irrep", "irrep", "regular", "regular")
CASES = [
    (lambda: _cyclic(4), ("regular",) * 3, ("regular",) * 5, {}),
    (lambda: _cyclic(8), ("regular",) * 4, ("regular",) * 4, {"groups": 4}),
    (lambda: _cyclic(4), ("regular", "irrep") * 2, ("regular", "trivial") * 2, {"groups": 2}),
    (lambda: _cyclic(3), MIXED, SORTED, {}),
    (lambda: _cyclic(4), SORTED, MIXED, {"bias": False}),
    (lambda: _cyclic(5), ("trivial",) * 3, MIXED, {}),
    (lambda: _dihedral(4), MIXED, MIXED, {"stride": 2, "padding": 1}),
    (lambda: _dihedral(3), ("irrep",) * 2, ("regular",) * 2, {"dilation": 2}),
]


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_construction_equals_e2cnns(case, size):
    make, sources, targets, options = CASES[case]
    gspace = make()
    in_type, out_type = _types(gspace, *sources), _types(gspace, *targets)
    torch.manual_seed(case)
    plain = enn.R2Conv(in_type, out_type, size, **options)
    torch.manual_seed(case)
    ours = build_convolution(in_type, out_type, size, **options)

    assert torch.equal(
        he_deviations(plain.basisexpansion), init._generalized_he_init_variances(plain.basisexpansion)
    )
    assert plain.weights.abs().min() > 0
    # e2cnn takes the pairs of field types from a set, so the order of keys is the process's
    expected, found = plain.state_dict(), ours.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert ours.basisexpansion.get_basis_names() == plain.basisexpansion.get_basis_names()
    assert ours.basisexpansion == plain.basisexpansion
    middle = ours.basisexpansion.get_basis_names()[len(ours.weights) // 2]
    for key in (0, len(ours.weights) - 1, middle):
        assert ours.basisexpansion.get_element_info(key) == plain.basisexpansion.get_element_info(key)

    x = enn.GeometricTensor(torch.randn(2, in_type.size, 11, 11), in_type)
    assert torch.allclose(ours(x).tensor, plain(x).tensor, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.eval()(x).tensor, plain.eval()(x).tensor, rtol=1e-5, atol=1e-5)
    assert torch.allclose(ours.export().weight, plain.export().weight, rtol=1e-5, atol=1e-6)
    assert set(ours.state_dict()) == set(plain.state_dict())


def test_the_convolution_is_e2cnns_and_copies_like_it():
    gspace = _cyclic(4)
    regular = _types(gspace, "regular", "regular")
    conv = build_convolution(regular, regular, 3)
    assert type(conv) is enn.R2Conv
    assert isinstance(conv.basisexpansion, LazyBlocksBasisExpansion)
    clone = copy.deepcopy(conv)
    with torch.no_grad():
        clone.weights.mul_(2)
    x = torch.randn(1, 8, 5, 5)
    doubled = clone(enn.GeometricTensor(x, clone.in_type)).tensor
    once = conv(enn.GeometricTensor(x, regular)).tensor
    bias = conv.bias_expansion @ conv.bias
    assert torch.allclose(doubled - bias[:, None, None], 2 * (once - bias[:, None, None]), atol=1e-6)


def test_e2cnns_own_constructor_stays_e2cnns():
    gspace = _cyclic(4)
    regular = _types(gspace, "regular")
    build_convolution(regular, regular, 3)
    assert type(enn.R2Conv(regular, regular, 3).basisexpansion).__name__ == "BlocksBasisExpansion"


def test_conversion_of_one_layer_leaves_the_others_alone(monkeypatch):
    monkeypatch.setattr(basisexpansion_singleblock, "_stored_filters", {})
    gspace = _cyclic(4)
    regular = _types(gspace, "regular")
    x = enn.GeometricTensor(torch.randn(1, 4, 5, 5), regular)
    first = build_convolution(regular, regular, 3)
    enn.R2Conv(regular, regular, 3).double()  # converts the basis in e2cnn's cache
    first.double()
    second = build_convolution(regular, regular, 3)
    assert second(x).tensor.dtype is torch.float32


def test_weights_stay_zero_on_request():
    gspace = _cyclic(4)
    regular = _types(gspace, "regular")
    conv = build_convolution(regular, regular, 3, initialize=False)
    assert not conv.weights.any()
    assert conv.weights.requires_grad


def test_drawing_again_draws_what_e2cnn_draws():
    gspace = _cyclic(8)
    regular = _types(gspace, "regular", "regular")
    conv = build_convolution(regular, regular, 3, initialize=False)
    torch.manual_seed(3)
    generalized_he_init(conv)
    torch.manual_seed(3)
    expected = torch.zeros_like(conv.weights.data)
    init.generalized_he_init(expected, conv.basisexpansion)
    assert torch.equal(conv.weights.data, expected)


@pytest.mark.parametrize(
    "names", [("regular",) * 4, ("trivial", "regular", "regular", "trivial"), SORTED[2:]]
)
def test_batch_norm_equals_e2cnns(names):
    in_type = _types(_cyclic(4), *names)
    plain, ours = enn.InnerBatchNorm(in_type), build_batch_norm(in_type)
    assert isinstance(ours, enn.InnerBatchNorm)
    expected, found = plain.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    x = enn.GeometricTensor(torch.randn(3, in_type.size, 4, 4), in_type)
    assert torch.equal(ours(x).tensor, plain(x).tensor)
    assert torch.equal(ours.eval()(x).tensor, plain.eval()(x).tensor)


def test_batch_norm_takes_its_options():
    in_type = _types(_cyclic(4), "regular")
    norm = build_batch_norm(in_type, eps=1e-2, momentum=0.5)
    assert (norm.eps, norm.momentum) == (1e-2, 0.5)


def test_a_filter_without_basis_is_refused_as_by_e2cnn():
    gspace = gspaces.Rot2dOnR2(-1, maximum_frequency=2)
    scalars = enn.FieldType(gspace, [gspace.trivial_repr])
    vectors = enn.FieldType(gspace, [gspace.irrep(1)])
    with pytest.raises(ValueError, match="basis for the steerable filter is empty"):
        build_convolution(scalars, vectors, 1)
