"""Both DenseNets: sizes, counterparts, invariance and training."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from densenet_samples import P4, P4M, SIZE, WIDTH, noise_images, trained_network

from eq_aimet.adapters.e2cnn import enn
from eq_aimet.models import DenseNet, EquivariantDenseNet
from eq_aimet.models.dense_architecture import plan_dense_architecture, pooling_window

ELEMENTS = [
    lambda x, turns=turns, flip=flip: x.rot90(turns, (2, 3)).flip(3) if flip else x.rot90(turns, (2, 3))
    for flip in (False, True)
    for turns in range(4)
]


def _count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def _weights(network):
    """The weights of all convolutions, in order."""
    return [
        module.weights if isinstance(module, enn.R2Conv) else module.weight
        for module in network.modules()
        if isinstance(module, (enn.R2Conv, torch.nn.Conv2d))
    ]


@pytest.mark.parametrize(
    ("make", "arguments", "weights", "published"),
    [
        (DenseNet, {}, 129_820, 128e3),
        (EquivariantDenseNet, P4, 128_793, 125e3),
        (EquivariantDenseNet, P4M, 123_185, 119e3),
    ],
)
def test_the_twins_have_about_the_published_number_of_weights(make, arguments, weights, published):
    network = make(**arguments)
    assert _count(network) == weights
    assert weights == pytest.approx(published, rel=0.04)  # Veeling et al. 2018


@pytest.mark.parametrize(("order", "fields"), [(1, 26), (2, 18), (4, 13), (8, 9)])
def test_width_one_has_veelings_channels(order, fields):
    plan = plan_dense_architecture(width=1.0, order=order, input_size=96)
    assert plan.stem_fields == fields
    assert [block.growth for block in plan.blocks] == 5 * [fields]
    assert [block.in_fields for block in plan.blocks] == [fields * times for times in (1, 2, 3, 4, 5)]
    assert plan.out_fields == 6 * fields


@pytest.mark.parametrize("size", range(32, 140))
def test_pooling_is_centred_on_every_grid(size):
    plan = plan_dense_architecture(width=1.0, order=8, input_size=size)
    grid = size
    assert plan.blocks[0].window == 0
    for block in plan.blocks[1:]:
        after = (grid - block.window) // 2 + 1
        # the first window begins at the first pixel, the last one ends at the last
        assert 2 * (after - 1) + block.window == grid
        assert block.window == pooling_window(grid)
        grid = after
    assert grid == plan.final_size >= 2


@pytest.mark.parametrize(("arguments", "order"), [(P4M, 8), (P4, 4), ({"group": 1, "reflections": False}, 1)])
def test_filters_have_all_degrees_of_freedom(arguments, order):
    network = EquivariantDenseNet(**arguments, input_size=SIZE)
    fields = round(26 / order**0.5)
    stem, *convolutions = _weights(network)
    assert stem.numel() == 9 * 3 * fields
    spatial, pointwise = convolutions[0::2], convolutions[1::2]
    assert [w.numel() for w in spatial] == [9 * order * fields**2 * times for times in (1, 2, 3, 4, 5)]
    assert [w.numel() for w in pointwise] == [order * (fields * times) ** 2 for times in (2, 3, 4, 5)]


def test_each_weight_makes_a_filter_of_its_own():
    layer = EquivariantDenseNet(width=WIDTH, **P4M, input_size=SIZE).blocks[0].layer
    layer = next(layer.children())
    filters = []
    for place in range(72):  # those of the first pair of fields
        with torch.no_grad():
            layer.weights.zero_()
            layer.weights[place] = 1.0
            filters.append(layer.expand_parameters()[0].flatten().double())
    assert torch.linalg.matrix_rank(torch.stack(filters), rtol=1e-4) == 72


def test_a_group_of_one_element_is_the_conventional_network():
    equivariant = EquivariantDenseNet(group=1, reflections=False, input_size=SIZE)
    conventional = DenseNet(input_size=SIZE)
    assert [w.numel() for w in _weights(equivariant)] == [w.numel() for w in _weights(conventional)]
    assert _count(equivariant) == _count(conventional)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [32, 33, 47])
@pytest.mark.parametrize("arguments", [P4, P4M], ids=["P4", "P4M"])
def test_turns_change_nothing_in_float64(arguments, size, training):
    network = trained_network(size=size, **arguments).double().train(training)
    x = noise_images(4, size).double()
    with torch.no_grad():
        expected = network(x)
        changes = [(network(act(x)) - expected).abs().max() for act in ELEMENTS]
    spread = (expected - expected.mean(0)).abs().max()
    assert spread > 1e-3 * expected.abs().max()
    assert max(changes[:4]) <= 1e-10 * spread
    if arguments["reflections"]:
        assert max(changes[4:]) <= 1e-10 * spread
    else:
        assert min(changes[4:]) > 1e-4 * spread


@pytest.mark.parametrize(
    ("group", "reflections", "kept"), [(1, True, [0, 4]), (2, False, [0, 2]), (2, True, [0, 2, 4, 6])]
)
def test_smaller_groups_have_their_own_elements_and_no_others(group, reflections, kept):
    network = trained_network(group=group, reflections=reflections).double().eval()
    x = noise_images(2).double()
    with torch.no_grad():
        changes = [(network(act(x)) - network(x)).abs().max() / network(x).abs().max() for act in ELEMENTS]
    assert [number for number, change in enumerate(changes) if change < 1e-10] == kept
    assert all(change > 1e-5 for number, change in enumerate(changes) if number not in kept)


def test_the_conventional_network_does_change():
    network = trained_network(DenseNet).double().eval()
    x = noise_images(2).double()
    with torch.no_grad():
        assert (network(ELEMENTS[1](x)) - network(x)).abs().max() > 1e-4 * network(x).abs().max()


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
def test_pixels_outside_the_circle_change_nothing(make):
    network = make(width=WIDTH, input_size=SIZE)
    x = torch.rand(2, 3, SIZE, SIZE)
    corner, centre = x.clone(), x.clone()
    corner[..., 0, :5] = 7.0
    centre[..., 16, 16] = 7.0
    assert torch.equal(network(x), network(corner))
    assert not torch.allclose(network(x), network(centre), rtol=1e-2)


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
def test_other_channels_classes_and_sizes(make):
    network = make(5, in_channels=1, width=WIDTH, input_size=50)
    assert network(torch.rand(2, 1, 50, 50)).shape == (2, 5)


@pytest.mark.parametrize("loaded_in", [True, False])
@pytest.mark.parametrize("saved_in", [True, False])
def test_a_checkpoint_of_either_mode_loads_in_either(saved_in, loaded_in, tmp_path):
    source, target = trained_network(seed=0), trained_network(seed=1).train(loaded_in)
    torch.save(source.train(saved_in).state_dict(), tmp_path / "network.pt")
    state = torch.load(tmp_path / "network.pt")
    assert not [key for key in state if key.endswith((".filter", ".expanded_bias"))]
    target.load_state_dict(state)
    assert target.training is loaded_in
    x = noise_images(2)
    with torch.no_grad():
        assert torch.equal(target.eval()(x), source.eval()(x))


def test_deep_copies_in_eval_mode_are_independent():
    network = trained_network().eval()
    clone = copy.deepcopy(network).double()
    x = noise_images(2)
    with torch.no_grad():
        assert torch.allclose(clone(x.double()).float(), network(x), atol=1e-4)
        assert network(x).dtype is torch.float32


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Synthetic tissue: the central 65 pixels of each patch at half the size, and the labels."""
    import h5py

    from eq_aimet.experiments.data import write_synthetic_pcam

    folder = write_synthetic_pcam(
        tmp_path_factory.mktemp("tissue"), train=512, valid=1, test=256, progress=False
    )
    sets = []
    for split in ("train", "test"):
        values = []
        for kind in "xy":
            with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{kind}.h5") as file:
                values.append(torch.from_numpy(file[kind][:]))
        centres = values[0][:, 15:81, 15:81].permute(0, 3, 1, 2).float() / 127.5 - 1
        sets.append((torch.nn.functional.avg_pool2d(centres, 2), values[1].flatten().long()))
    return sets


@pytest.mark.parametrize(
    ("make", "arguments", "steps"),
    [(DenseNet, {}, 128), (EquivariantDenseNet, P4, 64), (EquivariantDenseNet, P4M, 64)],
    ids=["conventional", "P4", "P4M"],
)
def test_training_learns_synthetic_tissue(make, arguments, steps, tissue):
    (images, labels), (test_images, test_labels) = tissue
    torch.manual_seed(0)
    network = make(width=WIDTH, input_size=SIZE, **arguments)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(steps):
        batch = torch.arange(32 * step, 32 * step + 32) % len(images)
        loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in network.parameters())
    with torch.no_grad():
        answers = network.eval()(test_images).argmax(1)
    assert float((answers == test_labels).float().mean()) > 0.7


IMPORTS = """
import sys
from eq_aimet.models import DenseNet
assert not {"e2cnn", "aimet_torch"} & set(sys.modules), "a slow import"
"""


def test_the_conventional_network_needs_no_e2cnn():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
