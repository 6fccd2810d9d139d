"""The mends of escnn: what fails without them works with them, and a healthy escnn is left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eq_aimet.adapters.escnn import compatibility, enn, gspaces
from eq_aimet.adapters.mending.precision import single_precision_classes

ROOT = Path(__file__).parents[3]
# Runs in a process of its own, where escnn is as it was installed until the adapter is imported.
PROBES = """
import json, sys, types, warnings
for name in ("lie_learn", "lie_learn.representations", "lie_learn.representations.SO3"):
    sys.modules[name] = types.ModuleType(name)
function = types.ModuleType("lie_learn.representations.SO3.wigner_d")
function.wigner_D_matrix = None  # only SO(3) calls it
sys.modules[function.__name__] = function
warnings.filterwarnings("ignore", message="`py3nj`")
import numpy as np, torch
from escnn import gspaces, nn as enn
from escnn.group import _numerical

def matrix():
    _numerical.null(np.eye(2).view(np.matrix), use_sparse=False)

def point():
    hash(gspaces.no_base_space(gspaces.rot2dOnR2(4).fibergroup))

def generic_norm():
    space = gspaces.rot2dOnR2(4)
    fields = enn.FieldType(space, 2 * [space.regular_repr])
    enn.GNormBatchNorm(fields)(fields(torch.randn(4, 8, 3, 3)))

def double():
    space = gspaces.rot2dOnR2(4)
    fields = enn.FieldType(space, [space.regular_repr])
    x = fields(torch.zeros(1, 4, 2, 2, dtype=torch.float64))
    assert enn.GroupPooling(fields)(x).tensor.dtype is torch.float64

def failures():
    failed = []
    for probe in (matrix, point, generic_norm, double):
        try:
            probe()
        except Exception:
            failed.append(probe.__name__)
    return failed

before = failures()
from eq_aimet.adapters.escnn import compatibility
json.dump({"before": before, "after": failures(), "left": compatibility.apply()}, sys.stdout)
"""


def test_everything_that_fails_in_plain_escnn_works_once_the_adapter_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", PROBES], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found = json.loads(done.stdout)
    assert found["after"] == found["left"] == []
    # `matrix` works by itself where scikit-learn is missing, for escnn then takes scipy's decomposition.
    assert found["before"][-3:] == ["point", "generic_norm", "double"]


def test_no_class_is_left_in_single_precision():
    assert single_precision_classes(enn) == []


def test_the_decomposition_of_a_matrix_is_that_of_the_array():
    matrix = np.arange(6.0).reshape(2, 3)
    seen = []

    def decompose(values, **options):
        seen.append((values, options))
        return "result"

    assert compatibility._decompose(decompose, matrix.view(np.matrix), n_components=2) == "result"
    assert type(seen[0][0]) is np.ndarray
    assert np.array_equal(seen[0][0], matrix)
    assert seen[0][1] == {"n_components": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_answer_in_the_precision_of_their_input(dtype):
    space = gspaces.rot2dOnR2(4)
    fields = enn.FieldType(space, [space.regular_repr, space.trivial_repr, space.regular_repr])
    x = fields(torch.rand(2, 9, 5, 5, dtype=dtype))
    for module in (enn.GroupPooling(fields), enn.NormPool(fields), enn.ReLU(fields)):
        assert module(x).tensor.dtype is dtype


@pytest.mark.parametrize("order", [2, 3, 4])
def test_convolutions_of_dihedral_groups_are_equivariant(order):
    """The mended basis is one: a turn or a flip of the input turns or flips the output."""
    space = gspaces.flipRot2dOnR2(order)
    fields = enn.FieldType(space, [space.regular_repr])
    layer = enn.R2Conv(fields, fields, 1).eval()
    x = fields(torch.randn(1, fields.size, 3, 3))
    for element in space.fibergroup.elements:
        turned = layer(x.transform_fibers(element)).tensor
        assert torch.allclose(turned, layer(x).transform_fibers(element).tensor, atol=1e-5)
