"""Our plain modules in AIMET's simulation: registered in every order of imports, quantized by its rules."""

import importlib
import subprocess
import sys

import pytest
import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.nn import QuantizationMixin
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation import quantized_modules
from eq_aimet.plain import Add, GroupMaxPool, Mask


class Network(torch.nn.Module):
    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.mask = Mask(torch.eye(5))
        self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.shortcut = torch.nn.Conv2d(3, 4, 1)
        self.add = Add()
        self.relu = torch.nn.ReLU() if relu else torch.nn.Identity()
        self.pool = GroupMaxPool((2, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        masked = self.mask(images)
        return self.pool(self.relu(self.add(self.convolution(masked), self.shortcut(masked))))


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    "configuration", [get_path_for_per_tensor_config, get_path_for_per_channel_config, None]
)
def test_the_simulation_takes_our_modules_and_quantizes_them_by_its_rules(configuration, relu):
    images = torch.rand(2, 3, 5, 5)
    model = Network(relu).eval()
    expected = model(images)
    sim = QuantizationSimModel(model, images, config_file=configuration and configuration())
    sim.compute_encodings(lambda quantized: quantized(images))

    def has_output_quantizer(module) -> bool:
        return module.output_quantizers[0] is not None

    assert isinstance(sim.model.add, quantized_modules.QuantizedAdd)
    # The supergroup (Add, Relu) has one quantizer, behind the ReLU.
    assert has_output_quantizer(sim.model.add) is not relu
    assert not relu or has_output_quantizer(sim.model.relu)
    assert has_output_quantizer(sim.model.mask)
    assert sim.model.mask.input_quantizers[0] is not None
    assert not has_output_quantizer(sim.model.pool)
    output = sim.model(images)
    assert not torch.equal(output, expected)
    assert (output - expected).abs().max() < 0.05 * expected.abs().max()


def test_quantizers_work_on_the_right_tensors():
    class Plus(torch.nn.Module):
        def __init__(self, amount: float) -> None:
            super().__init__()
            self.amount = amount

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.amount

    add, mask, pool = (
        QuantizationMixin.from_module(module)
        for module in (Add(), Mask(torch.tensor([[[[3.0]]]])), GroupMaxPool((2,)))
    )
    one = torch.ones(1, 2, 1, 1)
    assert add(one, 5 * one).flatten().tolist() == [6.0, 6.0]
    add.input_quantizers[0], add.input_quantizers[1], add.output_quantizers[0] = (
        Plus(10),
        Plus(200),
        Plus(4000),
    )
    assert add(one, 5 * one).flatten().tolist() == [4216.0, 4216.0]
    for module, plain in ((mask, 3.0 * 11.0), (pool, 11.0)):
        module.input_quantizers[0], module.output_quantizers[0] = Plus(10), Plus(4000)
        assert set(module(one).flatten().tolist()) == {plain + 4000}


def test_the_mask_stays_what_it_was():
    images = torch.rand(1, 3, 5, 5)
    sim = QuantizationSimModel(Network(True).eval(), images)
    assert torch.equal(sim.model.mask.mask, torch.eye(5))
    assert torch.equal(sim.model.mask.get_original_module()(images), images * torch.eye(5))


def test_registering_twice_changes_nothing():
    from eq_aimet.registration import connect

    before = {plain: QuantizationMixin.cls_to_qcls[plain] for plain in (Add, Mask, GroupMaxPool)}
    finders = list(sys.meta_path)
    connect()
    importlib.import_module("eq_aimet.aimet.simulation.quantized_modules")
    assert {plain: QuantizationMixin.cls_to_qcls[plain] for plain in before} == before
    assert sys.meta_path == finders


CONVERT = "print(type(aimet_torch.nn.QuantizationMixin.from_module(model)).__name__)"


@pytest.mark.parametrize(
    "script",
    [
        # Nobody imports eq_aimet.aimet; AIMET comes after the model, or before.
        "import torch; model = torch.load(PATH, weights_only=False); import aimet_torch.nn; " + CONVERT,
        "import torch, aimet_torch.nn; model = torch.load(PATH, weights_only=False); " + CONVERT,
    ],
    ids=["model first", "aimet first"],
)
def test_a_model_out_of_a_file_is_known_to_aimet(script, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(GroupMaxPool((2, 2)), path)
    command = [sys.executable, "-W", "error::ImportWarning", "-c", f"PATH = {str(path)!r}; {script}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "QuantizedGroupMaxPool"


def test_importing_the_package_does_not_import_aimet():
    script = "import sys, eq_aimet, eq_aimet.symmetry; sys.exit('aimet_torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_failing_registration_warns_and_lets_aimet_be_imported(monkeypatch):
    from eq_aimet import registration

    monkeypatch.setattr(registration, "_QUANTIZED_MODULES", "eq_aimet.no_such_module")
    with pytest.warns(ImportWarning, match=r"could not connect itself with aimet_torch.*no_such_module"):
        registration.connect()
