"""Orbits against e2cnn's own filters and against filters built by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eq_aimet.adapters.conversion import to_plain_module
from eq_aimet.adapters.e2cnn import enn, gspaces
from eq_aimet.errors import AsymmetryError, InvalidArgumentError
from eq_aimet.symmetry import (
    Action,
    LayerBlocks,
    asymmetry,
    is_symmetric,
    orbit_index,
    regular_actions,
    symmetrize,
    tag_blocks,
    weight_orbits,
)
from eq_aimet.symmetry.orbits import bias_orbits, orbit_means, orbit_spreads, remove_rounding

pytestmark = pytest.mark.exactness


def e2cnn_convolution(
    order: int, fields: tuple[int, int], kernel_size: int, groups: int = 1
) -> torch.nn.Conv2d:
    """An exported e2cnn convolution; -1 fields stand for one trivial field."""
    gspace = gspaces.Rot2dOnR2(order)
    types = [
        enn.FieldType(gspace, [gspace.trivial_repr] if count < 0 else [gspace.regular_repr] * count)
        for count in fields
    ]
    torch.manual_seed(0)
    module = enn.R2Conv(*types, kernel_size, groups=groups, padding=kernel_size // 2)
    layer = to_plain_module(module)
    sizes = [[1] if count < 0 else [order] * count for count in fields]
    tag_blocks(layer, *sizes, actions=regular_actions(*sizes, order=order, kernel_size=kernel_size))
    return layer


@pytest.mark.parametrize(
    ("order", "fields", "kernel_size", "groups", "count"),
    [
        # The exact turns move every channel, so that an orbit has one weight per exact element.
        (4, (1, 1), 3, 1, 4 * 4 * 9 // 4),
        (4, (2, 3), 3, 1, 6 * 4 * 4 * 9 // 4),
        (4, (-1, 2), 3, 1, 2 * 4 * 9 // 4),
        (4, (2, 2), 1, 1, 4 * 4 * 4 // 4),
        (4, (3, 3), 3, 3, 3 * 4 * 4 * 9 // 4),
        (4, (1, 1), 5, 1, 4 * 4 * 25 // 4),
        # C8: quarter turns are four of the eight elements, but for 1×1 kernels all eight are exact.
        (8, (1, 1), 3, 1, 8 * 8 * 9 // 4),
        (8, (-1, 1), 3, 1, 8 * 9 // 4),
        (8, (2, 1), 1, 1, 2 * 8 * 8 // 8),
        (8, (2, 2), 3, 2, 2 * 8 * 8 * 9 // 4),
        (2, (1, 1), 3, 1, 2 * 2 * 9 // 2),
        # One trivial field to one: the centre, the corners, the edges.
        (4, (-1, -1), 3, 1, 3),
        (2, (-1, -1), 3, 1, 5),
    ],
)
def test_filters_of_e2cnn_are_constant_on_orbits(order, fields, kernel_size, groups, count):
    layer = e2cnn_convolution(order, fields, kernel_size, groups)
    orbits = weight_orbits(layer)
    assert orbits.shape == layer.weight.shape
    assert sorted(orbits.unique().tolist()) == list(range(count))
    assert orbit_spreads(layer.weight, orbits).max() == 0.0
    assert is_symmetric(layer)
    assert layer.weight.abs().max() > 0


def test_orbits_of_a_random_filter_of_e2cnn_have_different_weights():
    layer = e2cnn_convolution(4, (1, 1), 1)
    assert len(layer.weight.unique()) == int(weight_orbits(layer).max()) + 1


def test_the_wrong_direction_of_turning_is_not_constant():
    layer = e2cnn_convolution(4, (-1, 1), 3)
    tag_blocks(layer, [1], [4], actions=[Action((0,), (3, 0, 1, 2), turns=1)])
    assert asymmetry(layer) > 0.1


def dihedral_filter() -> torch.Tensor:
    """A D4 lifting filter (8, 1, 3, 3): four turns of a kernel, then four of its mirror image."""
    kernel = torch.arange(9.0).reshape(1, 3, 3)
    return torch.stack(
        [torch.rot90(base, turn, (1, 2)) for base in (kernel, kernel.flip(2)) for turn in range(4)]
    )


def test_flips_by_hand():
    turn = Action((0,), (1, 2, 3, 0, 5, 6, 7, 4), turns=1)
    # Mirroring the kernel that was turned by g gives the mirror image, turned by -g.
    mirror = Action((0,), (4, 7, 6, 5, 0, 3, 2, 1), flip=True)
    orbits = orbit_index((8, 1, 3, 3), LayerBlocks((1,), (8,), (turn, mirror)))
    assert int(orbits.max()) + 1 == 9
    assert torch.equal(orbits.float(), dihedral_filter())
    # A mirroring that is then turned is one action as well.
    both = Action((0,), tuple(turn.permutation_out[o] for o in mirror.permutation_out), turns=1, flip=True)
    assert torch.equal(orbit_index((8, 1, 3, 3), LayerBlocks((1,), (8,), (turn, both))), orbits)


def test_channelwise_depthwise_orbits_are_those_of_a_lifting_filter():
    layer = torch.nn.Conv2d(8, 8, 3, groups=8)
    tag_blocks(layer, 4, actions=regular_actions([4, 4], [4, 4], order=4, kernel_size=3))
    kernels = torch.arange(18).reshape(2, 1, 3, 3)
    expected = torch.cat([torch.rot90(kernels[f : f + 1], g, (2, 3)) for f in range(2) for g in range(4)])
    assert torch.equal(weight_orbits(layer), expected)


def test_transposed_convolutions_are_read_the_other_way_round():
    forward, transposed = torch.nn.Conv2d(1, 4, 3), torch.nn.ConvTranspose2d(4, 1, 3)
    tag_blocks(forward, [1], [4], actions=regular_actions([1], [4], order=4, kernel_size=3))
    tag_blocks(transposed, [4], [1], actions=regular_actions([4], [1], order=4, kernel_size=3))
    assert torch.equal(weight_orbits(transposed), weight_orbits(forward))


def test_a_transposed_convolution_commutes_with_the_turn():
    layer = torch.nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, groups=2, bias=False).double()
    tag_blocks(layer, [4, 4], [1] * 4, actions=regular_actions([4, 4], [1] * 4, order=4, kernel_size=3))
    symmetrize(layer)
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    turned = torch.rot90(x, 1, (2, 3)).unflatten(1, (2, 4)).roll(1, 2).flatten(1, 2)
    assert torch.allclose(layer(turned), torch.rot90(layer(x), 1, (2, 3)), atol=1e-12)


def test_actions_across_groups_are_refused():
    layer = torch.nn.Conv2d(4, 4, 1, groups=2)
    tag_blocks(layer, 4, actions=regular_actions([4], [4], order=4))
    with pytest.raises(InvalidArgumentError, match="moves a channel out of its group"):
        weight_orbits(layer)


def test_layers_without_blocks_are_refused():
    for layer in (torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU()):
        with pytest.raises(InvalidArgumentError, match=r"without blocks.*tag_blocks"):
            weight_orbits(layer)
    with pytest.raises(InvalidArgumentError, match="no layer carries actions"):
        symmetrize(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([2, 4, 8]), st.integers(1, 2), st.sampled_from([1, 3]))
def test_symmetrize_is_an_orthogonal_projection(seed, order, fields, kernel_size):
    torch.manual_seed(seed)
    layer = torch.nn.Conv2d(order, order * fields, kernel_size).double()
    sizes = [order], [order] * fields
    tag_blocks(layer, *sizes, actions=regular_actions(*sizes, order=order, kernel_size=kernel_size))
    before = layer.weight.detach().clone()
    assert not is_symmetric(layer)
    symmetrize(layer)
    once = layer.weight.detach().clone()
    assert is_symmetric(layer)
    symmetrize(layer)
    assert torch.equal(layer.weight, once)
    # What was taken away is orthogonal to what was kept.
    assert abs(float(((before - once) * once).sum())) < 1e-9
    # A quarter turn of C8 moves a channel two places on, so that its biases stay apart in two halves.
    step = 1 if kernel_size == 1 else order // min(order, 4)
    biases = layer.bias.unflatten(0, (-1, order))
    assert torch.equal(biases.roll(step, 1), biases)


def test_symmetrize_ties_batch_norms_and_linear_layers():
    norm, linear = torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    torch.nn.init.normal_(norm.weight)
    shift = Action((1, 2, 3, 0), (1, 2, 3, 0))
    tag_blocks(norm, 4, actions=[shift])
    tag_blocks(linear, [4], [1, 1], actions=[Action((1, 2, 3, 0), (0, 1))])
    bias = linear.bias.detach().clone()
    symmetrize(torch.nn.Sequential(norm, linear))
    assert len(norm.weight.unique()) == 1
    assert len(linear.weight.unique()) == 2
    assert torch.equal(linear.bias, bias)


def test_asymmetry_is_relative_to_the_largest_weight():
    layer = torch.nn.Linear(2, 1, bias=False)
    tag_blocks(layer, 2, 1, actions=[Action((1, 0), (0,))])
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 3.0]]))
    assert asymmetry(layer) == 0.25
    assert is_symmetric(layer, 0.25)
    assert not is_symmetric(layer, 0.2)


def test_means_and_spreads_by_hand():
    values, orbits = torch.tensor([1.0, 5.0, 3.0, 7.0]), torch.tensor([0, 1, 0, 2])
    assert orbit_means(values, orbits).tolist() == [2.0, 5.0, 2.0, 7.0]
    assert orbit_spreads(values, orbits).tolist() == [2.0, 0.0, 0.0]


def test_biases_of_a_block_are_tied_where_the_actions_join_its_channels():
    shift_two = Action((0,), (2, 3, 0, 1, 4), turns=1)
    assert bias_orbits(LayerBlocks((1,), (4, 1), (shift_two,))).tolist() == [0, 1, 0, 1, 2]


def test_the_index_can_be_changed_without_harm():
    blocks = LayerBlocks((1,), (2,), (Action((0,), (1, 0)),))
    orbit_index((2, 1), blocks).fill_(9)
    assert orbit_index((2, 1), blocks).tolist() == [[0], [0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]), st.integers(1, 5))
def test_means_keep_the_bits_of_orbits_that_are_equal(seed, dtype, members):
    torch.manual_seed(seed)
    values = torch.randn(7, dtype=dtype).repeat(members)
    orbits = torch.arange(7).repeat(members)
    assert torch.equal(orbit_means(values, orbits), values)
    assert (orbit_spreads(orbit_means(torch.randn(7 * members, dtype=dtype), orbits), orbits) == 0).all()


def rotated_layer() -> torch.nn.Conv2d:
    """Return a C4 lifting convolution in which the copies of one weight differ in their last bits."""
    layer = torch.nn.Conv2d(1, 8, 3)
    tag_blocks(layer, [1], [4, 4], actions=regular_actions([1], [4, 4], order=4, kernel_size=3))
    symmetrize(layer)
    with torch.no_grad():
        layer.weight *= 1 + 3e-7 * torch.randint(-1, 2, layer.weight.shape)
        layer.bias *= 1 + 3e-7 * torch.randint(-1, 2, layer.bias.shape)
    return layer


def test_rounding_is_removed_whatever_processor_made_it():
    layer = rotated_layer()
    before = layer.weight.detach().clone()
    assert asymmetry(layer) > 0.0
    remove_rounding(layer)
    assert is_symmetric(layer)
    assert (layer.weight - before).abs().max() < 1e-6


def test_more_than_rounding_is_refused_and_no_layer_changes():
    model = torch.nn.Sequential(rotated_layer(), rotated_layer())
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] += 0.1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(AsymmetryError, match=r"`1`: its actions say .* Correct the `actions`"):
        remove_rounding(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_is_as_asymmetric_as_its_worst_layer():
    model = torch.nn.Sequential(rotated_layer(), torch.nn.ReLU(), rotated_layer())
    symmetrize(model[0])
    assert asymmetry(model) == asymmetry(model[2]) > 0.0
    assert not is_symmetric(model)
    symmetrize(model)
    assert is_symmetric(model)


@pytest.mark.parametrize("judge", [asymmetry, is_symmetric, symmetrize])
def test_a_model_without_actions_can_not_be_judged(judge):
    layer = torch.nn.Conv2d(4, 4, 1)
    tag_blocks(layer, 4)
    with pytest.raises(InvalidArgumentError, match="no layer carries actions"):
        judge(torch.nn.Sequential(layer))


def test_running_statistics_are_tied_too():
    norm = torch.nn.BatchNorm2d(4)
    tag_blocks(norm, 4, actions=[Action((1, 2, 3, 0), (1, 2, 3, 0))])
    norm.running_mean += torch.arange(4.0)
    assert not is_symmetric(norm)
    symmetrize(norm)
    assert norm.running_mean.tolist() == [1.5] * 4
