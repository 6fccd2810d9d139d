"""No bias saturates: channels without weights get a scale that leaves room for it."""

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import Residual, run_file, simulate, varied_images
from onnx import numpy_helper
from torch import nn

from eq_aimet import export_onnx, make_portable, tie_encodings
from eq_aimet.deploy.onnx.quantized_bias import LARGEST_BIAS

GAIN = 1e-5  # of the input of the layer with pruned channels


class Pruned(nn.Module):
    """Layers with pruned channels behind activations so small that int32 would not hold their biases."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.relu = nn.Conv2d(3, 6, 3), nn.ReLU()
        self.first.weight.data *= GAIN
        self.first.bias.data *= GAIN
        self.layer = {
            "convolution": nn.Conv2d(6, 4, 3),
            "depthwise": nn.Conv2d(6, 6, 3, groups=6),
            "transposed": nn.ConvTranspose2d(6, 4, 3),
            "linear": nn.Linear(6, 4),
        }[kind]
        axis = 1 if kind == "transposed" else 0
        self.layer.weight.data.select(axis, 1).zero_()
        self.layer.bias.data[1] = 14.0
        self.pool = nn.AdaptiveAvgPool2d(1) if kind == "linear" else nn.Identity()
        self.flatten = nn.Flatten() if kind == "linear" else nn.Identity()

    def forward(self, x):
        return self.layer(self.flatten(self.pool(self.relu(self.first(x)))))


@pytest.mark.parametrize("portable", [True, False], ids=["portable", "exported as it is"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["per channel", "per tensor"])
@pytest.mark.parametrize("kind", ["convolution", "depthwise", "transposed", "linear"])
def test_a_pruned_channel_keeps_its_bias(kind, per_channel, portable, tmp_path):
    images = varied_images(4)
    model = Pruned(kind).eval()
    if not per_channel:
        model.layer.weight.data.mul_(1e-5)  # the whole tensor's scale is too small then
    sim = simulate(model, per_channel=per_channel)
    expected = sim.model(images).detach()
    before = {name: value.clone() for name, value in sim.model.state_dict().items() if torch.is_tensor(value)}

    if portable:
        report = make_portable(sim, images)
        assert [entry.name for entry in report.raised_scales] == ["layer.weight"]
        assert "scales raised" in str(report)
        assert (sim.model(images) - expected).abs().max() < 0.1
    exported = export_onnx(sim, images[:1], tmp_path / "model.onnx")

    outputs = run_file(tmp_path / "model.onnx", images.numpy())
    assert np.abs(outputs - expected.numpy()).max() < 0.1
    assert outputs[:, 1].mean() == pytest.approx(14.0, abs=0.1)
    for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT32 and tensor.dims:
            assert np.abs(numpy_helper.to_array(tensor).astype(np.int64)).max() <= 1.001 * LARGEST_BIAS
    if not portable:
        assert exported.raised_weights == ("layer.weight",)
        assert "scale raised" in str(exported)
        assert all(torch.equal(value, sim.model.state_dict()[name]) for name, value in before.items())


def test_ties_stay_where_a_field_is_pruned(tmp_path):
    model = Residual(order=8).eval()
    model.head[0].weight.data[8:16] = 0.0
    model.head[0].bias.data[8:16] = 3.0
    model.body[4].weight.data *= 1e-6
    model.stem[0].weight.data *= 1e-6
    model.stem[0].bias.data *= 1e-6
    model.body[4].bias.data *= 1e-6
    sim = simulate(model, per_channel=True)
    tie_encodings(sim)
    images = varied_images(2)

    report = make_portable(sim, images)

    (raised,) = [entry for entry in report.raised_scales if entry.name == "head.0.weight"]
    assert raised.channels >= 8
    export_onnx(sim, images[:1], tmp_path / "model.onnx")


def test_a_frozen_encoding_is_named():
    from eq_aimet.errors import InvalidArgumentError

    sim = simulate(Pruned("linear").eval(), per_channel=True)
    make_portable(sim)
    sim.model.layer.param_quantizers["weight"].allow_overwrite(False)
    bias = sim.model.layer.bias.clone()

    with pytest.raises(InvalidArgumentError, match=r"a frozen encoding of layer\.weight"):
        make_portable(sim, varied_images(1))
    assert torch.equal(bias, sim.model.layer.bias)
