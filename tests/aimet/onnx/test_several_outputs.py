"""Models of several inputs and outputs, outputs that the group acts on, and layers that run twice."""

import pytest
import torch
from deployed_networks import convolution, varied_images
from torch import nn

from eq_aimet import assert_bit_exact, export_onnx, make_portable, tie_encodings, verify_onnx
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain import Add, GroupMaxPool
from eq_aimet.symmetry import Action, tag_blocks

FIELDS = 4


class Heads(nn.Module):
    """Two images in; a map, an invariant vector and the scores of the four turns out."""

    def __init__(self, container):
        super().__init__()
        torch.manual_seed(1)
        self.container = container
        self.lift = convolution(3, FIELDS, 3, order=4, image=True, padding=1)
        self.other_lift = convolution(1, FIELDS, 3, order=4, image=True, padding=1)
        self.add, self.relu = Add(), nn.ReLU()
        self.group_pool = GroupMaxPool((4,) * FIELDS)
        self.map = nn.Conv2d(FIELDS, 2, 1)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.scores = convolution(FIELDS, 1, 3, order=4)
        self.score_pool, self.score_flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, image, mask):
        fields = self.relu(self.add(self.lift(image), self.other_lift(mask)))
        heat = self.map(self.group_pool(fields))
        vector = self.flatten(self.pool(heat))
        scores = self.score_flatten(self.score_pool(self.scores(fields)))
        return self.container((heat, vector, scores))


def act(output, element, name):
    """The scores of the turns are shifted; the map is turned."""
    if output.shape[1:] == (4,):
        return output.roll(int(element.angle // 90), 1)
    return element.turn(output) if output.dim() == 4 else output


def simulation(model, inputs):
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(model.eval(), dummy_input=inputs)
    sim.compute_encodings(lambda quantized: quantized(*inputs))
    tie_encodings(sim)
    make_portable(sim, inputs)
    return sim


@pytest.mark.parametrize("container", [tuple, list, lambda parts: (parts[0], list(parts[1:]))])
def test_each_output_is_judged_by_its_own_action(container, tmp_path):
    images = (varied_images(4), varied_images(4, seed=2)[:, :1])
    sim = simulation(Heads(container), images)
    report = export_onnx(sim, tuple(image[:2] for image in images), tmp_path / "model.onnx")
    assert report.exact_on

    verified = verify_onnx(tmp_path / "model.onnx", sim, images, transform_output=act, runs=1)

    assert_bit_exact(verified)
    names = {check.output for check in verified.elements}
    assert names in ({"0", "1", "2"}, {"0", "1.0", "1.1"})
    assert len(verified.elements) == 3 * 3 * 2
    without = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, threads=(1,), elements=[90])
    assert {check.output for check in without.elements if check.changed} == {max(names)}
    assert not without.is_bit_exact
    assert "`transform_output`" in without.advice[0]


def test_inputs_by_name(tmp_path):
    images = (varied_images(4), varied_images(4, seed=2)[:, :1])
    sim = simulation(Heads(tuple), images)
    named = {"mask": images[1], "image": images[0]}
    export_onnx(sim, {name: tensor[:1] for name, tensor in named.items()}, tmp_path / "model.onnx")

    other_order = {"image": images[0], "mask": images[1]}
    assert_bit_exact(verify_onnx(tmp_path / "model.onnx", sim, other_order, transform_output=act, runs=1))
    with pytest.raises(InvalidArgumentError, match="`inputs`: received a container of other inputs"):
        verify_onnx(tmp_path / "model.onnx", sim, images[0])


class Twice(nn.Module):
    """A convolution that runs twice, with other ranges each time."""

    def __init__(self, depthwise, activation):
        super().__init__()
        torch.manual_seed(0)
        self.lift = convolution(3, FIELDS, 3, order=4, image=True, stride=2, padding=1)
        self.conv = convolution(FIELDS, FIELDS, 3, order=4, depthwise=depthwise, padding=1)
        self.relu = activation
        self.group_pool, self.pool, self.flatten = (
            GroupMaxPool((4,) * FIELDS),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )

    def forward(self, x):
        x = self.conv(self.relu(self.conv(self.lift(x))))
        return self.flatten(self.pool(self.group_pool(x)))


@pytest.mark.parametrize("storage", ["plain", "orbits"])
@pytest.mark.parametrize("depthwise", [None, "channel", "field"])
def test_layers_that_run_twice(depthwise, storage, tmp_path):
    images = varied_images(4)
    sim = simulation(Twice(depthwise, nn.ReLU()), (images,))
    report = export_onnx(sim, images[:1], tmp_path / "model.onnx", storage=storage)

    verified = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1)

    assert_bit_exact(verified)
    assert verified.fidelity.reference_difference == 0
    assert verified.fidelity.sqnr_to_sim > 20
    rewritten = [entry.into for entry in report.rewritten if "depthwise" in entry.into]
    assert len(rewritten) == (2 if depthwise == "field" else 0)


def test_a_changed_file_of_a_layer_that_runs_twice_is_reported_and_not_refused(tmp_path):
    images = varied_images(4)
    model = Twice(None, nn.ReLU())
    model.pool = nn.AvgPool2d(3)  # its flattened map turns
    sim = simulation(model, (images,))
    export_onnx(sim, images[:1], tmp_path / "model.onnx", storage="plain")

    assert not verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, threads=(1,)).is_bit_exact


def test_a_group_without_exact_turns_has_nothing_to_judge(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    turn = Action(tuple(range(3)), tuple(range(6)), 0)
    tag_blocks(model[0], 1, 3, actions=[turn])
    images = varied_images(4)
    sim = simulation(model, (images,))
    export_onnx(sim, images[:1], tmp_path / "model.onnx")

    report = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1)

    assert report.has_nothing_to_judge
    assert not report.is_bit_exact
    assert_bit_exact(report)
    assert "Nothing to judge" in str(report)
