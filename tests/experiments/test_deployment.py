"""What deployment does when the disk is full."""

import errno
from types import SimpleNamespace

import pytest
import torch

from eq_aimet.errors import DataError
from eq_aimet.experiments import ResultsFolder, deployment


def test_a_full_disk_while_verifying_is_one_clear_line(tmp_path, monkeypatch):
    def verify(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(deployment, "export_onnx", lambda *arguments, **options: None)
    monkeypatch.setattr(deployment, "verify_onnx", verify)
    sim = SimpleNamespace(model=torch.nn.Identity())
    with pytest.raises(DataError, match=r"could not be verified \(.*No space left.*\)\. Free some") as caught:
        deployment.deploy(sim, torch.rand(1, 3, 33, 33), ResultsFolder(tmp_path))
    assert "\n" not in str(caught.value)
