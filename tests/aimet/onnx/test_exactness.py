"""Deployed files in onnxruntime: bit-identical under the exact elements, equal to the integer reference."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from deployed_networks import Dense, Residual, convolution, d4_network, run_file, simulate, varied_images
from torch import nn

from eq_aimet import (
    assert_bit_exact,
    equalize_equivariant,
    export_model,
    export_onnx,
    make_portable,
    tie_encodings,
    verify_onnx,
)
from eq_aimet.aimet.onnx.verification import integer_outputs
from eq_aimet.deploy.onnx.integer_reference import IntegerReference
from eq_aimet.errors import EquivarianceError
from eq_aimet.experiments.training import PatchDataModule
from eq_aimet.models import EquivariantMobileNetV2
from eq_aimet.plain import Add, GroupMaxPool
from eq_aimet.symmetry import regular_actions, symmetrize, tag_blocks

pytestmark = pytest.mark.exactness

NETWORKS = {
    "C4 channel": lambda: Residual(4, "channel"),
    "C4 field": lambda: Residual(4, "field"),
    "C8 channel": lambda: Residual(8, "channel"),
    "C8 field": lambda: Residual(8, "field"),
    "C4 dense": lambda: Dense(4),
    "C8 dense": lambda: Dense(8),
    "D4": d4_network,
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
def test_portable_files_are_bit_exact_and_as_the_sim(name, per_channel, tmp_path):
    sim = simulate(NETWORKS[name](), per_channel=per_channel)
    tie_encodings(sim)
    images = varied_images(64)
    make_portable(sim, images[:1])
    export_onnx(sim, images[:1], tmp_path / "model.onnx")

    report = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, reference_images=16)

    assert_bit_exact(report)
    assert len(report.elements) == 2 * (7 if name == "D4" else 3)
    assert report.fidelity.reference_difference == 0
    assert report.fidelity.sqnr_deployed > report.fidelity.sqnr_sim - 1
    assert not any(operator.depends_on_order for operator in report.operators)
    outputs = run_file(tmp_path / "model.onnx", images.numpy())
    assert len(np.unique(outputs, axis=0)) > 4  # not one answer for everything


def test_both_storages_and_the_unarranged_file_have_equal_outputs(tmp_path, images):
    sim = simulate(Residual(4, "field"), per_channel=True)
    tie_encodings(sim)
    outputs = []
    for number, options in enumerate(
        [{"storage": "orbits"}, {"storage": "plain"}, {"storage": "plain", "arranged": False}]
    ):
        path = tmp_path / f"{number}.onnx"
        export_onnx(sim, images[:1], path, **options)
        outputs.append(run_file(path, images.numpy()))

    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])
    assert np.abs(outputs[0]).max() > 0


def test_the_reference_needs_no_runtime_and_agrees_with_it(exported, images):
    sim, path, _ = exported

    assert np.array_equal(integer_outputs(sim, images).numpy(), run_file(path, images.numpy()))


def test_the_reference_follows_wide_weights_on_a_runtime_that_does_not_saturate(tmp_path, images):
    sim = simulate(Residual())
    export_onnx(sim, images[:1], tmp_path / "model.onnx")

    precise = run_file(tmp_path / "model.onnx", images.numpy(), is_precise=True)

    (reference,) = IntegerReference(tmp_path / "model.onnx")([images.numpy()])
    assert np.array_equal(precise, reference)


class MixedBlocks(nn.Module):
    """Regular and trivial fields in one layer, and averages over the grid written in other ways."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lift = nn.Sequential(convolution(3, 8, 3, order=4, image=True, padding=1), nn.ReLU())
        self.mix = nn.Conv2d(32, 24, 1)
        blocks_in, blocks_out = [4] * 8, [4] * 5 + [1] * 4
        tag_blocks(self.mix, blocks_in, blocks_out, actions=regular_actions(blocks_in, blocks_out, order=4))
        symmetrize(self.mix)
        self.group_pool = GroupMaxPool((4,) * 5 + (1,) * 4)
        self.relu = nn.ReLU()
        self.add = Add()
        self.windows = nn.AvgPool2d(3, stride=1, padding=1)  # divides by nine at the border, too
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(9, 2)

    def forward(self, x):
        x = self.relu(self.group_pool(self.mix(self.lift(x))))
        x = self.add(x, self.windows(x))
        return self.classifier(self.flatten(self.pool(x)))


def test_mixed_blocks_and_padded_averages(tmp_path, images):
    sim = simulate(MixedBlocks())
    make_portable(sim)
    report = export_onnx(sim, images[:1], tmp_path / "model.onnx")

    assert [entry.into for entry in report.rewritten] == ["a depthwise convolution with ones"]
    assert {weight.name: weight.reason for weight in report.weights}["mix"] == ""
    verified = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1)
    assert_bit_exact(verified)
    assert verified.fidelity.reference_difference == 0


def test_a_network_that_is_not_equivariant_is_judged_so(tmp_path, images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    sim = simulate(model)
    make_portable(sim)
    export_onnx(sim, images[:1], tmp_path / "model.onnx")
    report = verify_onnx(tmp_path / "model.onnx", sim, images, runs=1, threads=(1,))

    assert not report.is_bit_exact
    with pytest.raises(
        EquivarianceError, match=r"is not bit-exact .* FP32 network itself is not equivariant"
    ):
        assert_bit_exact(report)


def test_padding_of_the_last_batch_does_not_leak(exported, images):
    _, path, _ = exported

    together = run_file(path, images.numpy())

    assert np.array_equal(together[2:3], run_file(path, images[2:3].numpy()))


DATA = Path(os.environ.get("EQ_AIMET_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
TISSUE = DATA / "nuclei_in_pcam_layout"


def tissue(split):
    """The images' central 51 pixels at a third of the size, and their labels."""
    import h5py

    values = []
    for kind in "xy":
        with h5py.File(TISSUE / f"camelyonpatch_level_2_split_{split}_{kind}.h5") as file:
            values.append(torch.from_numpy(file[kind][:]))
    centres = values[0][:, 22:73, 22:73].permute(0, 3, 1, 2).float() / 255
    small = nn.functional.avg_pool2d(centres, 3)
    colours = torch.tensor([0.75, 0.6, 0.7])[:, None, None]
    return (small - colours) / 0.2, values[1].flatten().long()


@pytest.mark.skipif(not TISSUE.exists(), reason="the real tissue test set is absent; set EQ_AIMET_DATA")
@pytest.mark.parametrize("name", ["C4 channel", "C4 field", "C8 channel", "C8 field", "D4", "dense"])
def test_trained_networks_classify_real_tissue_as_the_sim_does(name, tmp_path):
    wide = {
        "C4 channel": lambda: Residual(4, "channel", fields=6),
        "C4 field": lambda: Residual(4, "field", fields=6),
        "C8 channel": lambda: Residual(8, "channel", fields=6),
        "C8 field": lambda: Residual(8, "field", fields=6),
        "D4": d4_network,
        "dense": lambda: Dense(4),
    }
    images, labels = tissue("train")
    model = wide[name]().train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(400):
        batch = torch.arange(64 * step, 64 * step + 64) % len(images)
        loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        symmetrize(model)
    test_images, test_labels = tissue("test")
    with torch.no_grad():
        accuracy = float((model.eval()(test_images).argmax(1) == test_labels).float().mean())
    assert accuracy > 0.7  # it has learnt something
    sim = simulate(model, images=images[:256])
    make_portable(sim, images[:1])
    export_onnx(sim, images[:1], tmp_path / "model.onnx")

    report = verify_onnx(tmp_path / "model.onnx", sim, test_images, runs=1, reference_images=16)

    assert_bit_exact(report)
    assert report.images == 364
    assert report.fidelity.top1_agreement >= 0.995
    assert report.fidelity.sqnr_to_sim > 40
    assert report.fidelity.sqnr_deployed > report.fidelity.sqnr_sim - 1
    assert report.fidelity.reference_difference == 0


@pytest.mark.skipif(not TISSUE.exists(), reason="the real tissue test set is absent; set EQ_AIMET_DATA")
def test_a_trained_mobilenet_classifies_real_tissue_as_the_sim_does(tmp_path):
    torch.manual_seed(0)
    model = EquivariantMobileNetV2(width=0.25, group=4, input_size=33)
    data = PatchDataModule(TISSUE, batch_size=32, limits=(640, 64, 364), crop=47)

    def images(split, count):
        return nn.functional.interpolate(data.images(split, count), 33)  # 8-bit pixels, as they are

    pixels, labels = images("train", 640), torch.stack([data.train[index][1] for index in range(640)])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(60):
        batch = torch.arange(32 * step, 32 * step + 32) % len(pixels)
        loss = nn.functional.cross_entropy(model(pixels[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plain = export_model(model.eval(), pixels[:1])
    equalize_equivariant(plain, dummy_input=pixels[:1])
    sim = simulate(plain, images=pixels[:128])
    make_portable(sim, pixels[:1])
    export_onnx(sim, pixels[:1], tmp_path / "model.onnx")

    report = verify_onnx(tmp_path / "model.onnx", sim, images("test", 364), runs=1)

    assert_bit_exact(report)
    assert report.images == 364
    assert report.fidelity.top1_agreement >= 0.995
    assert report.fidelity.sqnr_to_sim > 35
    assert report.fidelity.sqnr_deployed > report.fidelity.sqnr_sim - 1
