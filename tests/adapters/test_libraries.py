"""Libraries are mended once both packages are imported, in either order, and known by one register."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from e2cnn import gspaces, nn

from eq_aimet.adapters.libraries import is_field_type, is_typed_tensor, library_of, package_of

SPACE = gspaces.Rot2dOnR2(4)
FIELDS = nn.FieldType(SPACE, [SPACE.regular_repr])

# A 1×1 convolution from a trivial field fails on current torch without the mends.
CONVOLVE = """
import torch
space = gspaces.Rot2dOnR2(4)
fields = nn.FieldType(space, [space.trivial_repr])
layer = nn.R2Conv(fields, fields, 1).eval()
"""
EXPORT = "print(type(eq_aimet.export_model(layer, torch.rand(1, 1, 3, 3))).__name__)"


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "imports",
    [
        "from e2cnn import gspaces, nn\nimport eq_aimet",
        "import eq_aimet\nfrom e2cnn import gspaces, nn",
        "import eq_aimet\nimport e2cnn.nn as nn\nimport e2cnn.gspaces as gspaces",
        "from eq_aimet import export_model\nfrom e2cnn import gspaces, nn\nimport eq_aimet",
        "import eq_aimet.adapters.e2cnn\nfrom e2cnn import gspaces, nn",
    ],
    ids=["e2cnn first", "eq_aimet first", "submodules", "a public name first", "the adapter first"],
)
def test_e2cnn_works_as_soon_as_both_are_imported(imports):
    done = run_python(f"{imports}\n{CONVOLVE}\n{EXPORT}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "R2Conv"


def test_e2cnn_alone_fails_so_that_the_test_above_can_fail():
    assert run_python("from e2cnn import gspaces, nn" + CONVOLVE).returncode == 1


def test_importing_the_package_imports_neither_a_library_nor_torch():
    done = run_python("import sys, eq_aimet; print({'e2cnn', 'escnn', 'torch'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


class OwnReLU(nn.ReLU):
    """A user's class belongs to the library that it derives from."""


@pytest.mark.parametrize(
    "value", [SPACE, FIELDS, OwnReLU(FIELDS), nn.GeometricTensor(torch.zeros(1, 4, 1, 1), FIELDS)]
)
def test_objects_of_e2cnn_are_known(value):
    assert package_of(value) == "e2cnn"
    assert library_of(value).tensor_class is nn.GeometricTensor


@pytest.mark.parametrize("value", [None, 3, torch.zeros(1), torch.nn.ReLU(), "e2cnn", object()])
def test_other_objects_belong_to_no_library(value):
    assert library_of(value) is None
    assert not is_typed_tensor(value)
    assert not is_field_type(value)
