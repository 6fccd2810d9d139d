"""escnn is imported without packages that planar groups do not need, and what is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXPORT = """
import torch
space = gspaces.flipRot2dOnR2(4)
fields = nn.FieldType(space, [space.regular_repr])
layer = nn.R2Conv(fields, fields, 3).eval()
print(type(eq_aimet.export_model(layer, torch.rand(1, 8, 3, 3))).__name__)
"""


def run_python(code, folder, **modules):
    """Run code where each of the modules, a file by its path, is found first."""
    for path, text in modules.items():
        *parents, name = path.split("__")
        file = Path(folder, *parents, f"{'__init__' if name == '_init' else name}.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    path = os.pathsep.join([str(folder), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )


SO3 = "lie_learn__representations__SO3__"
BROKEN = {
    "lie_learn___init": "",
    "lie_learn__representations___init": "",
    f"{SO3}_init": "",
    f"{SO3}wigner_d": "from lie_learn.representations.SO3.irrep_bases import change_of_basis_matrix",
    f"{SO3}irrep_bases": "raise ImportError('built for numpy 1')",
}


@pytest.mark.parametrize("modules", [{}, BROKEN], ids=["as installed", "lie_learn broken"])
def test_escnn_is_imported_and_exports(modules, tmp_path):
    done = run_python("import eq_aimet\nfrom escnn import gspaces, nn" + EXPORT, tmp_path, **modules)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "R2Conv"


def test_other_groups_name_the_package_that_they_need(tmp_path):
    code = "import eq_aimet\nfrom escnn.group import so3_group\nso3_group(1).irrep(1)(so3_group(1).sample())"
    done = run_python(code, tmp_path, **BROKEN)
    assert "ImportError: escnn calls `lie_learn` for the groups SO(3) and O(3)" in done.stderr


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ({"joblib": "raise ModuleNotFoundError(name='joblib')"}, "the package `joblib` is missing"),
        ({"escnn___init": "raise ModuleNotFoundError(name='escnn')"}, "the package `escnn` is missing"),
        ({"escnn___init": "__version__ = '0.1.9'", "escnn__nn": ""}, "escnn 0.1.9 is too old"),
    ],
    ids=["a requirement", "escnn", "an old escnn"],
)
def test_what_is_missing_is_named(modules, message, tmp_path):
    code = "from eq_aimet.models import EquivariantMobileNetV2\nEquivariantMobileNetV2(library='escnn')"
    done = run_python(code, tmp_path, **modules)
    assert "MissingPackageError: " in done.stderr
    assert message in done.stderr
    assert "pip install --no-deps" in done.stderr
