"""Blocks and actions out of field types, and filters that are bit-constant on the orbits of these."""

from __future__ import annotations

import math

import pytest
import torch

from eq_aimet.adapters.conversion import to_plain_module
from eq_aimet.adapters.e2cnn import enn, gspaces
from eq_aimet.adapters.fields import describe_layer, exact_elements, field_sizes, tag_with_types
from eq_aimet.symmetry import is_symmetric, orbit_index
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks

pytestmark = pytest.mark.exactness


def types(space, *names):
    fields = {"trivial": space.trivial_repr, "regular": space.regular_repr}
    return enn.FieldType(space, [fields[name] for name in names])


def build_filter(space, kernel_size, groups=1, seed=0):
    """Return the plain convolution of a random R2Conv; of regular fields only if it has groups."""
    torch.manual_seed(seed)
    names = ["regular", "regular"] if groups > 1 else ["regular", "trivial"]
    in_type = types(space, *names)
    module = enn.R2Conv(in_type, in_type, kernel_size, groups=groups)
    with torch.no_grad():
        module.weights.normal_()
        module.bias.normal_()
    return to_plain_module(module)


SPACES = {
    **{f"C{n}": gspaces.Rot2dOnR2(n) for n in (2, 3, 4, 6, 8, 12)},
    **{f"D{n}": gspaces.FlipRot2dOnR2(n) for n in (2, 3, 4, 8)},
    "flips": gspaces.Flip2dOnR2(),
    "D6, axis of 0": gspaces.FlipRot2dOnR2(6, axis=0.0),
    "D5, diagonal axis": gspaces.FlipRot2dOnR2(5, axis=math.pi / 4),
}


WITHOUT_EXACT_ELEMENTS = ("C3",)  # for kernels larger than one pixel


def test_field_sizes_are_in_channel_order():
    space = gspaces.Rot2dOnR2(4)
    in_type = enn.FieldType(
        space, [space.regular_repr, space.trivial_repr, space.irrep(1), space.regular_repr]
    )
    assert field_sizes(in_type) == (4, 1, 2, 4)
    assert all(type(size) is int for size in field_sizes(in_type))


def test_regular_fields_shift_cyclically():
    space = gspaces.Rot2dOnR2(8)
    in_type, out_type = types(space, "trivial"), types(space, "regular", "trivial")
    blocks = describe_layer(in_type, out_type, kernel_size=3)
    assert (blocks.blocks_in, blocks.blocks_out) == ((1,), (8, 1))
    (action,) = blocks.actions
    assert (action.turns, action.flip) == (1, False)
    assert action.permutation_in == (0,)
    assert action.permutation_out == (2, 3, 4, 5, 6, 7, 0, 1, 8)


def test_every_element_is_exact_for_a_single_pixel():
    space = gspaces.Rot2dOnR2(8)
    (action,) = describe_layer(types(space, "regular"), types(space, "regular")).actions
    assert (action.turns, action.flip) == (0, False)
    assert action.permutation_out == (1, 2, 3, 4, 5, 6, 7, 0)


@pytest.mark.parametrize(
    ("space", "kernel_size", "expected"),
    [
        (gspaces.Rot2dOnR2(3), 3, set()),
        (gspaces.Rot2dOnR2(2), 3, {(2, False)}),
        (gspaces.Rot2dOnR2(6), 3, {(2, False)}),
        (gspaces.Rot2dOnR2(12), 3, {(1, False)}),
        (gspaces.TrivialOnR2(), 3, set()),
        (gspaces.Flip2dOnR2(), 3, {(0, True)}),
        (gspaces.Flip2dOnR2(axis=0.0), 3, {(2, True)}),
        (gspaces.Flip2dOnR2(axis=math.pi / 8), 3, set()),
        (gspaces.FlipRot2dOnR2(4), 3, {(1, False), (0, True)}),
        (gspaces.FlipRot2dOnR2(4, axis=math.pi / 8), 3, {(1, False)}),
        (gspaces.FlipRot2dOnR2(4, axis=math.pi / 8), 1, {(0, False)}),
        (gspaces.Rot2dOnR2(-1, 2), 3, {(1, False)}),
        (gspaces.FlipRot2dOnR2(-1, 2), 3, {(1, False), (0, True)}),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_exact_elements_of_each_space(space, kernel_size, expected):
    found = exact_elements(space, kernel_size > 1)
    assert {(turns, flip) for _, turns, flip in found} == expected


def test_spaces_that_differ_in_their_axis_alone_are_kept_apart():
    """e2cnn calls them equal, and so would a cache."""
    first, second = gspaces.Flip2dOnR2(), gspaces.Flip2dOnR2(axis=0.0)
    assert first == second
    assert [turns for _, turns, _ in exact_elements(first, True)] == [0]
    assert [turns for _, turns, _ in exact_elements(second, True)] == [2]


def test_fields_that_are_not_permuted_have_blocks_and_no_action():
    space = gspaces.Rot2dOnR2(4)
    vectors = enn.FieldType(space, [space.irrep(1), space.trivial_repr])
    assert describe_layer(vectors, vectors, kernel_size=3) == LayerBlocks((2, 1), (2, 1), ())
    signs = enn.FieldType(space, [space.irrep(2)])
    assert describe_layer(signs, signs, kernel_size=3).actions == ()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("name", SPACES)
def test_filters_are_bit_constant_on_their_orbits(name, kernel_size, groups):
    space = SPACES[name]
    layer = build_filter(space, kernel_size, groups)
    if not stored_blocks(layer).actions:
        assert name in WITHOUT_EXACT_ELEMENTS
    else:
        assert is_symmetric(layer)
        with torch.no_grad():
            layer.weight[0, 0, 0, 0] += 1e-3
        if orbit_sizes(layer)[0] > 1:
            assert not is_symmetric(layer, tolerance=1e-5)


def test_filters_of_a_confused_axis_carry_the_actions_that_they_have(caplog):
    """e2cnn reuses the filters of an equal space, which may have another axis."""
    first = gspaces.FlipRot2dOnR2(10, axis=0.0)
    second = gspaces.FlipRot2dOnR2(10, axis=math.pi / 2)
    for space, count in ((first, 2), (second, 1)):
        layer = build_filter(space, 3)
        declared = describe_layer(types(space, "regular"), types(space, "regular"), kernel_size=3)
        assert len(declared.actions) == 2
        assert len(stored_blocks(layer).actions) == count
        assert is_symmetric(layer)
    assert "is not symmetric under Action(turns=0, flip=True), which its types declare" in caplog.text


def orbit_sizes(layer):
    """Return the size of each orbit of the layer's weights; the first is the first weight's."""
    orbits = orbit_index(tuple(layer.weight.shape), stored_blocks(layer), groups=layer.groups)
    return torch.bincount(orbits.flatten()).tolist()


def test_orbits_are_as_large_as_the_exact_group():
    space = gspaces.FlipRot2dOnR2(4)
    layer = to_plain_module(enn.R2Conv(types(space, "trivial"), types(space, "regular"), 3))
    sizes = orbit_sizes(layer)
    assert set(sizes) == {8}
    assert sum(sizes) == layer.weight.numel()


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_rounding_of_any_processor_is_taken_off(kernel_size):
    """Copies of one weight that differ in their last bits stand for a processor that rounds otherwise."""
    in_type = types(gspaces.FlipRot2dOnR2(4), "regular", "trivial")
    layer = to_plain_module(enn.R2Conv(in_type, in_type, kernel_size))
    with torch.no_grad():
        layer.weight *= 1 + 3e-7 * torch.randint(-1, 2, layer.weight.shape)
        layer.bias *= 1 + 3e-7 * torch.randint(-1, 2, layer.bias.shape)
    assert not is_symmetric(layer)
    tag_with_types(layer, in_type, in_type, kernel_size=kernel_size)
    assert is_symmetric(layer)
