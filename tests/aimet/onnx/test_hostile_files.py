"""Files from strangers end in one clear error, or work; memory is bounded, and nothing changes."""

import os
import resource
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from deployed_networks import SIZE, Residual, simulate, varied_images
from hostile_files import GRAPHS, forged, hostile_file

from eq_aimet import export_onnx, verify_onnx
from eq_aimet.errors import EqAimetError, InvalidArgumentError

FILES = 300


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    sim = simulate(Residual(fields=2))
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    export_onnx(sim, torch.rand(1, 3, SIZE, SIZE), path)
    return sim, path


def state(sim):
    return [tensor.detach().clone() for tensor in (*sim.model.parameters(), *sim.model.buffers())]


def test_hundreds_of_hostile_files(small, tmp_path):
    sim, original = small
    content, before, images = original.read_bytes(), state(sim), varied_images(2)
    outcomes = Counter()
    for seed in range(FILES):
        hostile, change = hostile_file(content, seed)
        path = tmp_path / "model.onnx"
        path.write_bytes(hostile)
        try:
            report = verify_onnx(path, sim, images, runs=1, threads=(1,), reference_images=1)
        except EqAimetError:
            outcomes[change, "refused"] += 1
        else:
            outcomes[change, "works"] += 1
            assert isinstance(report.is_bit_exact, bool)
        assert path.read_bytes() == hostile
        assert os.listdir(tmp_path) == ["model.onnx"]
    assert all(torch.equal(old, new) for old, new in zip(before, state(sim), strict=True))
    assert len({change for change, _ in outcomes}) == 16
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert peak < 8, f"{peak:.1f} GiB"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lead_outside", "lies in another file"),
        ("claim_a_shape", "has the shape"),
        ("make_a_huge_constant", "has the shape|unknown size"),
        ("change_a_domain", "not ONNX's own"),
        ("hide_a_subgraph", "control flow"),
        ("lose_an_output", "not valid ONNX|without inputs or outputs"),
    ],
)
def test_the_reason_is_named(small, tmp_path, name, text):
    sim, original = small
    model = onnx.load(original)
    next(change for change in GRAPHS if change.__name__ == name)(model, np.random.default_rng(1))
    (tmp_path / "model.onnx").write_bytes(forged(model))

    with pytest.raises(InvalidArgumentError, match=text):
        verify_onnx(tmp_path / "model.onnx", sim, varied_images(2))


def test_a_single_flipped_bit_is_noticed(small, tmp_path):
    sim, original = small
    content = bytearray(original.read_bytes())
    weight = max(onnx.load(original).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    content[bytes(content).index(weight) + 5] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(InvalidArgumentError, match="its checksum is wrong"):
        verify_onnx(tmp_path / "model.onnx", sim, varied_images(2))
