"""Both DenseNets: sizes, counterparts, invariance, refusals, training, and the way to an INT8 file."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys

import pytest
import torch

from eq_aimet.adapters.e2cnn import enn
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models import DenseNet, EquivariantDenseNet
from eq_aimet.models.dense_architecture import plan_dense_architecture, pooling_window

SIZE = 33  # grids 16, 8, 4 and 2: both windows occur
WIDTH = 0.25
P4M, P4 = {"group": 4, "reflections": True}, {"group": 4, "reflections": False}
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


def _trained(make=EquivariantDenseNet, *, size=SIZE, width=WIDTH, seed=0, **arguments):
    """A network whose batch norms have seen data and whose weights have been moved by gradients."""
    torch.manual_seed(seed)
    network = make(width=width, input_size=size, **arguments)
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.momentum = 1.0  # two steps are too few for a running average
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(_images(8, size)), torch.arange(8) % 2).backward()
        optimizer.step()
    return network


def _images(count, size=SIZE):
    """Noise of different brightness and colour, so that the answers differ."""
    return 2 * torch.rand(count, 3, 1, 1) * torch.rand(count, 3, size, size)


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
    network = _trained(size=size, **arguments).double().train(training)
    x = _images(4, size).double()
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
    network = _trained(group=group, reflections=reflections).double().eval()
    x = _images(2).double()
    with torch.no_grad():
        changes = [(network(act(x)) - network(x)).abs().max() / network(x).abs().max() for act in ELEMENTS]
    assert [number for number, change in enumerate(changes) if change < 1e-10] == kept
    assert all(change > 1e-5 for number, change in enumerate(changes) if number not in kept)


def test_the_conventional_network_does_change():
    network = _trained(DenseNet).double().eval()
    x = _images(2).double()
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
    source, target = _trained(seed=0), _trained(seed=1).train(loaded_in)
    torch.save(source.train(saved_in).state_dict(), tmp_path / "network.pt")
    state = torch.load(tmp_path / "network.pt")
    assert not [key for key in state if key.endswith((".filter", ".expanded_bias"))]
    target.load_state_dict(state)
    assert target.training is loaded_in
    x = _images(2)
    with torch.no_grad():
        assert torch.equal(target.eval()(x), source.eval()(x))


def test_deep_copies_in_eval_mode_are_independent():
    network = _trained().eval()
    clone = copy.deepcopy(network).double()
    x = _images(2)
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


@pytest.fixture
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(("arguments", "elements"), [(P4, 3), (P4M, 7)], ids=["P4", "P4M"])
def test_int8_files_are_bit_exact(arguments, elements, tmp_path):
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet import (
        assert_bit_exact,
        equalize_equivariant,
        equivariance_error,
        export_model,
        export_onnx,
        make_portable,
        tie_encodings,
        verify_onnx,
    )

    network = _trained(**arguments).eval()
    images = _images(32)
    plain = export_model(network, images[:1])
    expected = plain(images)
    assert torch.allclose(expected, network(images), atol=1e-6 * float(expected.detach().abs().max()))
    assert not any(type(module).__module__.startswith("e2cnn") for module in plain.modules())

    report = equalize_equivariant(plain, dummy_input=images[:1])
    _check_equalization(report)
    assert torch.allclose(plain(images), expected, atol=1e-5 * float(expected.detach().abs().max()))
    assert float(equivariance_error(plain, images[:2])) < 1e-10

    sim = QuantizationSimModel(plain, dummy_input=images[:1])
    sim.compute_encodings(lambda quantized: quantized(images))
    tie_encodings(sim)
    make_portable(sim)
    assert float(equivariance_error(sim.model, images[:2])) == 0.0
    export_onnx(sim, images[:1], tmp_path / "model.onnx")
    verified = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, threads=(1,), reference_images=2)
    assert_bit_exact(verified)
    assert len(verified.elements) == elements
    assert verified.fidelity.reference_difference == 0
    assert verified.fidelity.sqnr_deployed > max(10, verified.fidelity.sqnr_sim - 1)


def _check_equalization(report):
    """Nothing is left out: all batch norms are folded, and each stage is one region of two writers."""
    assert len(report.norms) == 10
    assert all(norm.folded_into for norm in report.norms)
    assert len(report.layers) == 11
    assert report.left_out == ()
    readers = [(f"blocks.{n}.layer.0", f"blocks.{n + 1}.transition.1") for n in range(4)]
    writers = [("stem.0", "blocks.0.layer.0")]
    writers += [(f"blocks.{n}.transition.1", f"blocks.{n}.layer.0") for n in range(1, 5)]
    assert [region.sources for region in report.regions] == writers
    assert [region.sinks for region in report.regions] == [*readers, ("blocks.4.layer.0", "classifier")]
    assert all(region.scales.smallest < 0.9 * region.scales.largest for region in report.regions)


@pytest.mark.usefixtures("_quiet")
def test_the_conventional_network_goes_through_aimet_as_it_is():
    from aimet_torch.cross_layer_equalization import equalize_model
    from aimet_torch.quantsim import QuantizationSimModel

    import eq_aimet.aimet  # noqa: F401 (tells AIMET of the mask and the concatenation)

    network = _trained(DenseNet).eval()
    images = _images(8)
    expected = network(images).detach()
    equalize_model(network, dummy_input=images[:1])
    sim = QuantizationSimModel(network, dummy_input=images[:1])
    sim.compute_encodings(lambda quantized: quantized(images))
    joined = [m for name, m in sim.model.named_modules() if name.endswith(".concat")]
    assert len(joined) == 5
    assert all(module.output_quantizers[0].is_initialized() for module in joined)  # it ran
    difference = (sim.model(images) - expected).abs().max() / expected.abs().max()
    assert 0 < difference < 0.1


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
@pytest.mark.parametrize("shape", [(2, 3, 35, 35), (2, 1, 33, 33), (3, 33, 33), (2, 3, 33, 35)])
def test_another_shape_is_refused(make, shape):
    network = make(width=WIDTH, input_size=SIZE)
    with pytest.raises(InvalidArgumentError) as raised:
        network(torch.zeros(shape))
    assert str(raised.value) == (
        f"`x`: received shape {shape}; expected (batch, 3, 33, 33). Crop or resize the images to 33×33, or "
        "build the network with the `in_channels` and `input_size` of your images."
    )


@pytest.mark.parametrize("make", [DenseNet, EquivariantDenseNet])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_classes": 0}, "`num_classes`: received 0; expected an integer of at least 1."),
        ({"num_classes": 2.0}, "`num_classes`: received 2.0; expected an integer of at least 1."),
        ({"in_channels": True}, "`in_channels`: received True; expected an integer of at least 1."),
        ({"input_size": 0}, "`input_size`: received 0; expected an integer of at least 1."),
        (
            {"input_size": 31},
            "`input_size`: received 31; expected at least 32, which leaves a final grid of 2. "
            "Pad or resize the input to 32 or more.",
        ),
        ({"width": 0.03}, "`width`: received 0.03; expected at least 0."),
        ({"width": float("nan")}, "`width`: received nan; expected a number above 0 and at most 16."),
        ({"width": float("inf")}, "`width`: received inf; expected a number above 0 and at most 16."),
        ({"width": "wide"}, "`width`: received 'wide'; expected a number above 0 and at most 16."),
    ],
)
def test_wrong_arguments_are_refused(make, arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        make(**arguments)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"group": 8},
            "`group`: received 8; expected 1, 2 or 4: turns by which 3×3 filters stay on their pixels. "
            "Take EquivariantMobileNetV2 for finer rotations.",
        ),
        (
            {"group": True},
            "`group`: received True; expected 1, 2 or 4: turns by which 3×3 filters stay on their pixels. "
            "Take EquivariantMobileNetV2 for finer rotations.",
        ),
        (
            {"reflections": "yes"},
            "`reflections`: received 'yes'; expected True or False. "
            "Take True where images have no handedness, as tissue has none.",
        ),
        (
            {"width": 0.1},
            "`width`: received 0.1; expected at least 0.109, at which a layer is one field of 8 "
            "channels. Widen the network or take a smaller group.",
        ),
    ],
)
def test_wrong_arguments_of_the_equivariant_one_are_refused(arguments, text):
    with pytest.raises(InvalidArgumentError) as raised:
        EquivariantDenseNet(**arguments)
    assert str(raised.value) == text


IMPORTS = """
import sys
from eq_aimet.models import DenseNet
assert not {"e2cnn", "aimet_torch"} & set(sys.modules), "a slow import"
"""


def test_the_conventional_network_needs_no_e2cnn():
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
