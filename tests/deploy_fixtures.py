"""Fixtures of the tests that write ONNX files, shared by several folders' conftest.py."""

import logging

import pytest
import torch
from deployed_networks import SIZE, Residual, simulate, varied_images

from eq_aimet import export_onnx, make_portable


@pytest.fixture(autouse=True)
def quiet_aimet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are too small for two
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def images():
    return varied_images(4)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A portable C4 simulation, its file by orbit, and the report. Leave them as they are."""
    logging.disable(logging.WARNING)
    sim = simulate(Residual(fields=12))
    make_portable(sim)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    report = export_onnx(sim, torch.rand(1, 3, SIZE, SIZE), path, float_model=True)
    logging.disable(logging.NOTSET)
    return sim, path, report
