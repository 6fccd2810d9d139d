"""Networks whose ends are written with torch's functions are exact on the device, and compute in integers."""

import pytest
import torch
from torch.nn import functional as F

from eq_aimet import (
    equalize_equivariant,
    export_model,
    export_onnx,
    make_portable,
    tie_encodings,
    verify_onnx,
)
from eq_aimet.adapters.e2cnn import enn, gspaces

SPACE = gspaces.Rot2dOnR2(4)
IMAGE = enn.FieldType(SPACE, [SPACE.trivial_repr])
HIDDEN = enn.FieldType(SPACE, 4 * [SPACE.regular_repr])
VECTORS = enn.FieldType(SPACE, 40 * [SPACE.irrep(1)])


class Network(torch.nn.Module):
    """Convolutions, functions before and behind the group pooling, and a linear layer."""

    def __init__(self, before, behind, features=4):
        super().__init__()
        self.first = enn.R2Conv(IMAGE, HIDDEN, 3)
        self.second = enn.R2Conv(HIDDEN, HIDDEN, 3, padding=1)
        self.pool = enn.GroupPooling(HIDDEN)
        self.linear = torch.nn.Linear(features, 3)
        self.gate = torch.nn.Parameter(torch.tensor(0.3))
        self.scales = torch.nn.Parameter(torch.linspace(0.5, 1.5, 4))
        self.before, self.behind = before, behind

    def forward(self, x):
        field = self.first(enn.GeometricTensor(x, IMAGE))
        field = enn.GeometricTensor(self.before(field.tensor, self), HIDDEN)
        return self.linear(self.behind(self.pool(self.second(field)).tensor, self))


def deployed(network, tmp_path, side=13):
    """Return the report of the network's file, equalized, simulated and made portable."""
    x = torch.rand(16, 1, side, side, generator=torch.Generator().manual_seed(1))
    from aimet_torch.quantsim import QuantizationSimModel

    plain = export_model(network.eval(), x)
    before = plain(x).detach()
    equalize_equivariant(plain, dummy_input=x)
    assert float((plain(x).detach() - before).abs().max()) <= 1e-5 * float(before.abs().max())
    sim = QuantizationSimModel(plain, dummy_input=x)
    sim.compute_encodings(lambda model: model(x))
    tie_encodings(sim)
    make_portable(sim, x[:1])
    export_onnx(sim, x[:1], tmp_path / "model.onnx")
    return verify_onnx(tmp_path / "model.onnx", sim, x)


def _repeated_scales(m):
    return m.scales.repeat_interleave(4).view(1, -1, 1, 1)


BEFORE = {
    "relu": lambda t, m: F.relu(t),
    "residual scale": lambda t, m: t + torch.tanh(m.gate) * F.relu(t),
    "layer scale": lambda t, m: torch.relu(t) * _repeated_scales(m) + 0.1,
    "pooling": lambda t, m: F.max_pool2d(F.pad(F.leaky_relu(t, 0.1), (1, 1, 1, 1)), 3, 2),
    "average": lambda t, m: F.avg_pool2d(F.relu(t), 3, stride=2),
    "bilinear": lambda t, m: F.interpolate(F.relu(t), scale_factor=2, mode="bilinear"),
    "bilinear to corners": lambda t, m: F.interpolate(
        F.relu(t), size=31, mode="bilinear", align_corners=True
    ),
    "sigmoid": lambda t, m: torch.sigmoid(t) / 2,
}

BEHIND = {
    "mean": lambda t, m: t.mean((2, 3)),
    "sum": lambda t, m: t.sum(dim=(-1, -2)),
    "maximum": lambda t, m: torch.amax(t, dim=(2, 3)),
    "adaptive": lambda t, m: torch.flatten(F.adaptive_avg_pool2d(t, 1), 1),
    "whole average": lambda t, m: F.avg_pool2d(t, t.shape[-1]).flatten(1),
    "kept mean": lambda t, m: t.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1),
}


@pytest.mark.parametrize("before", BEFORE)
def test_functions_between_layers_are_exact_and_run_in_integers(before, tmp_path):
    torch.manual_seed(0)
    report = deployed(Network(BEFORE[before], BEHIND["mean"]), tmp_path)
    assert report.is_bit_exact, str(report)
    assert not [o.name for o in report.operators if o.depends_on_order], str(report)


@pytest.mark.parametrize("behind", BEHIND)
def test_the_end_of_a_classifier_is_exact_and_runs_in_integers(behind, tmp_path):
    torch.manual_seed(0)
    report = deployed(Network(BEFORE["relu"], BEHIND[behind]), tmp_path)
    assert report.is_bit_exact, str(report)
    assert not [o.name for o in report.operators if o.depends_on_order], str(report)


def test_the_largest_vectors_of_many_fields_are_followed_by_the_integer_reference(tmp_path):
    class Vectors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = enn.R2Conv(IMAGE, VECTORS, 3)
            self.pool = enn.NormMaxPool(VECTORS, 3, 2)
            self.norm = enn.NormPool(VECTORS)
            self.linear = torch.nn.Linear(40, 2)

        def forward(self, x):
            field = self.pool(self.convolution(enn.GeometricTensor(x, IMAGE)))
            return self.linear(self.norm(field).tensor.mean((2, 3)))

    torch.manual_seed(0)
    report = deployed(Vectors(), tmp_path, side=15)
    assert report.fidelity.reference_images > 0
    assert report.fidelity.reference_difference < 0.05
