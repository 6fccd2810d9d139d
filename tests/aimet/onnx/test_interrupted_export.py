"""An export that is interrupted at any moment leaves the simulation and the older files as they were."""

import copy
import signal
import sys

import pytest
import torch
from deployed_networks import SIZE, Residual, simulate

from eq_aimet import export_onnx, make_portable
from eq_aimet.errors import DataError, InvalidArgumentError

IMAGE = torch.rand(1, 3, SIZE, SIZE)


class Interrupt:
    """Raises Ctrl-C at the call of this number of any quantizer, of the simulation or of its copies."""

    def __init__(self, sim, at):
        self.calls, self.at = 0, at
        self.handles = [
            module.register_forward_pre_hook(self)
            for name, module in sim.model.named_modules()
            if "quantizers." in name
        ]

    def __deepcopy__(self, memo):
        return self

    def __call__(self, *_):
        self.calls += 1
        if self.calls == self.at:
            signal.raise_signal(signal.SIGINT)


def state(sim):
    values = {name: value for name, value in sim.model.state_dict().items() if torch.is_tensor(value)}
    types = [type(module).__name__ for module in sim.model.modules()]
    return {name: value.clone() for name, value in values.items()}, types, sim.model.training


def assert_as_before(before, sim):
    values, types, training = state(sim)
    assert (types, training) == before[1:]
    assert list(values) == list(before[0])
    assert all(torch.equal(value, values[name]) for name, value in before[0].items())


@pytest.mark.parametrize("function", ["export", "portable"])
def test_ctrl_c_in_any_quantizer(function, tmp_path):
    def call(sim):
        if function == "export":
            export_onnx(sim, IMAGE, tmp_path / "model.onnx")
        else:
            make_portable(sim, IMAGE)

    sim = simulate(Residual().train())
    sim.model.train()
    for name in ("model.onnx", "model.encodings"):
        (tmp_path / name).write_text("older")
    counting = Interrupt(copy.deepcopy(sim), 0)
    whole = copy.deepcopy(sim)
    counting.handles = [
        module.register_forward_pre_hook(counting)
        for name, module in whole.model.named_modules()
        if "quantizers." in name
    ]
    folder = tmp_path / "whole"
    folder.mkdir()
    export_onnx(whole, IMAGE, folder / "model.onnx") if function == "export" else make_portable(whole, IMAGE)
    assert counting.calls > 20

    before = state(sim)
    for at in range(1, counting.calls + 1, max(1, counting.calls // 12)):
        interrupt = Interrupt(sim, at)
        with pytest.raises(KeyboardInterrupt):
            call(sim)
        for handle in interrupt.handles:
            handle.remove()
        assert_as_before(before, sim)
        assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
            "model.onnx": "older",
            "model.encodings": "older",
        }


def test_an_error_of_the_exporter_is_one_clear_error(tmp_path, monkeypatch):
    sim = simulate(Residual())
    before = state(sim)

    class Refused(torch.nn.Module):
        def forward(self, x):
            if torch.onnx.is_in_onnx_export():
                raise ZeroDivisionError("not here")
            return x

    sim.model.mask = Refused()
    with pytest.raises(InvalidArgumentError, match=r"exporter fails on \(ZeroDivisionError: not here\)"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(before[0]["classifier.weight"], sim.model.classifier.weight)


def test_a_target_that_cannot_be_written_leaves_all_older_files(tmp_path):
    sim = simulate(Residual())
    (tmp_path / "model.encodings").write_text("older")
    (tmp_path / "model.float.onnx").mkdir()

    with pytest.raises(DataError, match="older files are as they were"):
        export_onnx(sim, IMAGE, tmp_path / "model.onnx", float_model=True)

    assert (tmp_path / "model.encodings").read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.encodings", "model.float.onnx"]
    assert sys.exc_info() == (None, None, None)
