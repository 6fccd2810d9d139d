"""Networks in the style of published ones go from the export to a verified INT8 file."""

from __future__ import annotations

import pytest
import torch
from aimet_torch.quantsim import QuantizationSimModel
from test_published_critic import Critic
from test_published_networks import (
    C4,
    C8,
    E2SFCNN,
    Actor,
    EquivariantNet,
    KeyPoints,
    Matcher,
    RadioGalaxies,
    ReResNet,
    regular,
)

from eq_aimet import (
    equalize_equivariant,
    export_model,
    export_onnx,
    make_portable,
    tie_encodings,
    verify_onnx,
)


class MatcherWithTuple(Matcher):
    """AIMET's graph takes no dictionary."""

    def forward(self, pair):
        return (super().forward(pair)["confidence"],)


def regular_fields(output, element, name):
    """Return the fields of a stage of ReResNet as they are for a turned image."""
    fields = regular(C8, int(name) + 1)
    matrix = torch.tensor(fields.representation(round(element.angle / 45))).round()
    return torch.einsum("oi,bihw->bohw", matrix.to(output), element.turn(output))


def actions(output, element, name):
    """Return the actions as they are for a turned image: the mean holds a vector between two numbers."""
    if name == "1":
        return output
    matrix = torch.tensor(C4.irrep(1)(round(element.angle / 90))).round()
    return torch.cat((output[:, :1], output[:, 1:3] @ matrix.to(output).T, output[:, 3:]), 1)


# The outputs of other networks are not judged: a turned image alone does not tell how they change.
BIT_EXACT = {ReResNet: regular_fields, Actor: actions, E2SFCNN: None}
# The operators that sum floats in the file of a network; other files have no such operator.
FLOAT_SUMS = {
    MatcherWithTuple: {"Einsum", "QLinearSoftmax"},
    KeyPoints: {"QLinearSoftmax", "ReduceMean"},
    E2SFCNN: {"ReduceMean"},
    RadioGalaxies: {"LogSoftmax"},
}
NETWORKS = (ReResNet, MatcherWithTuple, KeyPoints, Actor, E2SFCNN, RadioGalaxies, EquivariantNet, Critic)


def simulated(kind):
    """Return a simulation of a network, and its images."""
    torch.manual_seed(0)
    images = (torch.rand(2, 2, 9, 9), torch.rand(2, 4)) if kind is Critic else torch.rand(2, *kind.shape)
    plain = export_model(kind().eval(), images)
    report = equalize_equivariant(plain, dummy_input=images)
    assert all(layer.reason for layer in report.left_out)
    sim = QuantizationSimModel(plain, dummy_input=images)
    # A vector reaches the ends of its range only if it is calibrated on turned images as well.
    turned = [images if kind is Critic else (torch.rot90(images, turns, (2, 3)),) for turns in range(4)]
    sim.compute_encodings(lambda model: [model(*some) for some in turned])
    tie_encodings(sim)
    make_portable(sim, images)
    return sim, images


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", NETWORKS, ids=lambda kind: kind.__name__)
def test_it_goes_to_a_file(kind, tmp_path):
    sim, images = simulated(kind)
    written = export_onnx(sim, images, tmp_path / "model.onnx")
    report = verify_onnx(
        tmp_path / "model.onnx", sim, images, transform_output=BIT_EXACT.get(kind), threads=(1,), runs=1
    )
    assert report.fidelity.sqnr_to_sim > 40.0
    if kind not in FLOAT_SUMS:
        assert report.fidelity.reference_difference == 0.0
    assert set(written.float_sums) == FLOAT_SUMS.get(kind, set())
    assert bool(written.exact_on) == (kind not in FLOAT_SUMS)
    if kind in BIT_EXACT:
        report.assert_bit_exact()
