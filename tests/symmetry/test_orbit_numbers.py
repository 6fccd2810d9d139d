"""The numbering of orbits against the definition, which walks from weight to weight."""

import random

import pytest
import torch

from eq_aimet.symmetry import Action, LayerBlocks, orbit_index, regular_actions
from eq_aimet.symmetry.orbit_numbers import first_members


def by_definition(shape, actions):
    """Return the orbits by walking from weight to weight, for a convolution of one group."""
    numbers = torch.full(shape, -1)
    count = 0
    size = shape[-1]
    for start in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        if numbers[tuple(start)] >= 0:
            continue
        waiting = [tuple(start)]
        while waiting:
            place = waiting.pop()
            if numbers[place] >= 0:
                continue
            numbers[place] = count
            row, column, y, x = place
            for action in actions:
                to_y, to_x = y, size - 1 - x if action.flip else x
                for _ in range(action.turns):  # counter-clockwise
                    to_y, to_x = size - 1 - to_x, to_y
                waiting.append((action.permutation_out[row], action.permutation_in[column], to_y, to_x))
        count += 1
    return numbers


@pytest.mark.parametrize("order", [2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_regular_fields(order, kernel_size):
    actions = regular_actions([order, 1], [order, 1], order=order, kernel_size=kernel_size)
    shape = (order + 1, order + 1, kernel_size, kernel_size)
    blocks = LayerBlocks((order, 1), (order, 1), actions)
    assert torch.equal(orbit_index(shape, blocks), by_definition(shape, actions))


@pytest.mark.parametrize("seed", range(12))
def test_any_actions(seed):
    generator = random.Random(seed)
    rows, columns, size = generator.randint(1, 5), generator.randint(1, 5), generator.choice([1, 2, 3])
    actions = tuple(
        Action(
            tuple(generator.sample(range(columns), columns)),
            tuple(generator.sample(range(rows), rows)),
            generator.randint(0, 3),
            generator.random() < 0.5,
        )
        for _ in range(generator.randint(1, 3))
    )
    shape = (rows, columns, size, size)
    found = orbit_index(shape, LayerBlocks((1,) * columns, (1,) * rows, actions))
    assert found.dtype == torch.int64
    assert torch.equal(found, by_definition(shape, actions))


def test_first_members_are_the_smallest_places():
    orbits = torch.tensor([[0, 1], [1, 2], [0, 2]])
    assert first_members(orbits).tolist() == [0, 1, 3]
