"""The mends of e2cnn: what fails without them works with them, and a healthy e2cnn is left alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from e2cnn.group.groups import o2group
from e2cnn.kernels import irreps_basis
from e2cnn.kernels import utils as kernel_utils
from e2cnn.nn.modules.batchnormalization import gnorm
from e2cnn.nn.modules.r2_conv import basisexpansion_blocks, basisexpansion_singleblock

from eq_aimet.adapters.e2cnn import compatibility, enn, gspaces
from eq_aimet.adapters.mending import precision
from eq_aimet.adapters.mending.rebinding import Namespace

# Runs in a process of its own, where e2cnn is as it was installed until the adapter is imported.
PROBES = """
import json, sys, warnings
warnings.simplefilter("error")
import torch
from e2cnn import gspaces, nn as enn

def convolve(gspace, source, target, size):
    types = [enn.FieldType(gspace, [field]) for field in (source, target)]
    enn.R2Conv(*types, size)

def trivial():
    gspace = gspaces.Rot2dOnR2(4)
    convolve(gspace, gspace.trivial_repr, gspace.trivial_repr, 1)

def flips():
    gspace = gspaces.Flip2dOnR2()
    convolve(gspace, gspace.regular_repr, gspace.regular_repr, 3)

def dihedral():
    gspace = gspaces.FlipRot2dOnR2(4)
    convolve(gspace, gspace.regular_repr, gspace.regular_repr, 3)

def induced():
    group = gspaces.FlipRot2dOnR2(-1, 2).fibergroup
    group.induced_representation((None, -1), group.subgroup((None, -1))[0].irrep(1))

def mixed():
    gspace = gspaces.Rot2dOnR2(3)
    fields = [gspace.trivial_repr, gspace.regular_repr, gspace.trivial_repr]
    enn.R2Conv(enn.FieldType(gspace, fields), enn.FieldType(gspace, fields), 3)

def double():
    gspace = gspaces.Rot2dOnR2(4)
    fields = enn.FieldType(gspace, [gspace.regular_repr])
    x = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    assert enn.GroupPooling(fields)(enn.GeometricTensor(x, fields)).tensor.dtype is torch.float64

def failures():
    failed = []
    for probe in (trivial, flips, dihedral, induced, mixed, double):
        try:
            probe()
        except Exception as error:
            failed.append(probe.__name__)
    return failed

before = failures()
from eq_aimet.adapters.e2cnn import compatibility
json.dump({"before": before, "after": failures()}, sys.stdout)
"""


def test_everything_that_fails_in_plain_e2cnn_works_once_the_adapter_is_imported():
    done = subprocess.run([sys.executable, "-c", PROBES], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["after"] == []
    # if plain e2cnn passes them all, the mends have nothing to do and this file is out of date
    assert found["before"] == ["trivial", "flips", "dihedral", "induced", "mixed", "double"]


def _irrep(gspace):
    return gspace.irrep(1) if isinstance(gspace, gspaces.Rot2dOnR2) else gspace.irrep(1, 1)


def _field(gspace):
    return gspace.regular_repr if gspace.fibergroup.order() > 0 else _irrep(gspace)


def _exact_elements(gspace):
    if gspace.fibergroup.order() < 0:
        quarter = np.pi / 2
        if isinstance(gspace, gspaces.Rot2dOnR2):
            return [quarter, 2 * quarter]
        return [(0, quarter), (1, 0.0), (1, quarter)]
    order = gspace.fibergroup.order()
    if isinstance(gspace, gspaces.Flip2dOnR2):
        return [1]
    rotations = order // 2 if isinstance(gspace, gspaces.FlipRot2dOnR2) else order
    step = max(1, rotations // 4)
    if isinstance(gspace, gspaces.FlipRot2dOnR2):
        return [(flip, turn) for flip in (0, 1) for turn in range(0, rotations, step)]
    return list(range(0, rotations, step))


GSPACES = {
    "C4": lambda: gspaces.Rot2dOnR2(4),
    "C8": lambda: gspaces.Rot2dOnR2(8),
    "D4": lambda: gspaces.FlipRot2dOnR2(4),
    "D8": lambda: gspaces.FlipRot2dOnR2(8),
    "flips": lambda: gspaces.Flip2dOnR2(),
    "SO(2)": lambda: gspaces.Rot2dOnR2(-1, maximum_frequency=2),
    "O(2)": lambda: gspaces.FlipRot2dOnR2(-1, maximum_frequency=2),
}


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", GSPACES)
def test_convolutions_are_equivariant(name, size):
    gspace = GSPACES[name]()
    torch.manual_seed(0)
    scalars, vectors = (enn.FieldType(gspace, 2 * [field]) for field in (gspace.trivial_repr, _field(gspace)))
    pairs = [(scalars, scalars), (vectors, vectors)]
    if size > 1 or gspace.fibergroup.order() > 0:  # a 1×1 filter can't turn a scalar into a vector
        pairs += [(scalars, vectors), (vectors, scalars)]
    for in_type, out_type in pairs:
        conv = enn.R2Conv(in_type, out_type, size, padding=size // 2).eval()
        x = enn.GeometricTensor(torch.randn(1, in_type.size, 7, 7), in_type)
        with torch.no_grad():
            expected = conv(x)
            scale = expected.tensor.abs().max()
            assert scale > 1e-3
            for element in _exact_elements(gspace):
                difference = conv(x.transform(element)).tensor - expected.transform(element).tensor
                assert difference.abs().max() <= 2e-6 * scale, (in_type, out_type, element)


def test_applying_again_changes_nothing():
    modules = (basisexpansion_singleblock, basisexpansion_blocks, kernel_utils, o2group)
    before = [(module.np, module.torch if hasattr(module, "torch") else None) for module in modules]
    hashes = [
        vars(solution).get("__hash__") for solution in vars(irreps_basis).values() if _is_class(solution)
    ]
    assert compatibility.apply() == ()
    assert [(m.np, m.torch if hasattr(m, "torch") else None) for m in modules] == before
    after = [
        vars(solution).get("__hash__") for solution in vars(irreps_basis).values() if _is_class(solution)
    ]
    assert after == hashes


def _is_class(value):
    return isinstance(value, type)


def test_numpy_and_torch_are_untouched():
    assert torch.uint8 is not torch.bool
    assert not hasattr(np, "float")
    with pytest.raises(ValueError, match="copy"):
        np.array(0.5, copy=False)


def test_a_fault_that_comes_back_is_mended_again(monkeypatch):
    monkeypatch.setattr(kernel_utils, "np", np)
    names = compatibility.apply()
    assert names == ("np.array(copy=False): R2Conv of D4 and D8",)
    assert isinstance(kernel_utils.np, Namespace)


class HealthyExpansion:
    def __init__(self):
        self.mask = basisexpansion_singleblock.torch.zeros(1, dtype=basisexpansion_singleblock.torch.bool)


class HealthyBlocks:
    def __init__(self):
        self.grid = basisexpansion_blocks.torch.meshgrid([], indexing="ij")


class HealthyNorm:
    def forward(self, input):
        return torch.einsum("ds,bs->bd", input).reshape(1)


class HealthyGroup:
    def induce(self):
        return np.zeros(1, dtype=np.float64)


def test_a_healthy_e2cnn_is_left_alone(monkeypatch):
    monkeypatch.setattr(basisexpansion_singleblock, "np", np)
    monkeypatch.setattr(basisexpansion_singleblock, "torch", torch)
    monkeypatch.setattr(basisexpansion_singleblock, "SingleBlockBasisExpansion", HealthyExpansion)
    monkeypatch.setattr(basisexpansion_blocks, "torch", torch)
    monkeypatch.setattr(basisexpansion_blocks, "BlocksBasisExpansion", HealthyBlocks)
    monkeypatch.setattr(o2group, "np", np)
    monkeypatch.setattr(o2group, "O2", HealthyGroup)
    monkeypatch.setattr(kernel_utils, "np", np)
    monkeypatch.setattr(kernel_utils, "psi", lambda theta, k, gamma: theta)
    monkeypatch.setattr(gnorm, "torch", torch)
    monkeypatch.setattr(gnorm, "GNormBatchNorm", HealthyNorm)
    assert compatibility.apply() == ()
    assert basisexpansion_singleblock.np is np
    assert basisexpansion_singleblock.torch is torch
    assert basisexpansion_blocks.torch is torch
    assert kernel_utils.np is np
    assert o2group.np is np
    assert gnorm.torch is torch


def test_generic_batch_norms_of_regular_fields_run():
    gspace = gspaces.FlipRot2dOnR2(4)
    fields = enn.FieldType(gspace, [gspace.regular_repr, gspace.regular_repr])
    x = enn.GeometricTensor(torch.randn(8, 16, 5, 5), fields)
    y = enn.GNormBatchNorm(fields)(x).tensor.unflatten(1, (2, 8))  # [8, 2, 8, 5, 5]
    torch.testing.assert_close(y.mean((0, 2, 3, 4)), torch.zeros(2), rtol=0, atol=1e-5)


def test_labelled_branches_merge_in_both_precisions():
    gspace = gspaces.Rot2dOnR2(4)
    one, two = (enn.FieldType(gspace, count * [gspace.regular_repr]) for count in (1, 2))
    merge = enn.MergeModule([(enn.IdentityModule(two), "a"), (enn.IdentityModule(one), "b")])
    for dtype in (torch.float32, torch.float64):
        branches = {
            "a": enn.GeometricTensor(torch.rand(1, 8, 3, 3, dtype=dtype), two),
            "b": enn.GeometricTensor(torch.rand(1, 4, 3, 3, dtype=dtype), one),
        }
        merged = merge(branches).tensor
        assert merged.dtype is dtype
        assert torch.equal(merged, torch.cat([branches["a"].tensor, branches["b"].tensor], 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_answer_in_the_precision_of_their_input(dtype, monkeypatch):
    # e2cnn's layers share the basis, so that conversion of one reaches later tests through its cache
    monkeypatch.setattr(basisexpansion_singleblock, "_stored_filters", {})
    gspace = gspaces.Rot2dOnR2(4)
    fields = enn.FieldType(gspace, [gspace.regular_repr, gspace.trivial_repr, gspace.regular_repr])
    x = enn.GeometricTensor(torch.rand(2, 9, 5, 5, dtype=dtype), fields)
    for module in (enn.GroupPooling(fields), enn.R2Conv(fields, fields, 3).to(dtype), enn.NormPool(fields)):
        assert module(x).tensor.dtype is dtype
    pooled = enn.GroupPooling(fields)(x).tensor  # [2, 3, 5, 5]
    assert torch.equal(pooled[:, 1], x.tensor[:, 4])


def test_no_class_is_left_in_single_precision():
    assert precision.single_precision_classes(enn) == []


def test_a_class_that_reads_its_inputs_dtype_is_not_touched(monkeypatch):
    class Healthy(enn.EquivariantModule):
        def forward(self, input):
            return torch.empty(1, dtype=input.dtype)

    class Single(enn.EquivariantModule):
        def forward(self, input):
            return torch.empty(1, dtype=torch.float)

    monkeypatch.setattr(enn, "Healthy", Healthy, raising=False)
    monkeypatch.setattr(enn, "Single", Single, raising=False)
    assert precision.single_precision_classes(enn) == [Single]
