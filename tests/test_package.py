"""The package as a whole: what importing it loads, its public names, its layers, its version."""

import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import eq_aimet
from eq_aimet import errors

ROOT = Path(__file__).parents[1]
HEAVY = ("e2cnn", "escnn", "aimet_torch", "lightning", "matplotlib", "torchmetrics", "sklearn")


def run_python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def imported_by(statement: str, names: tuple[str, ...]) -> set[str]:
    """The packages among `names` that a fresh interpreter has loaded after `statement`."""
    done = run_python(f"{statement}\nimport sys\nprint(*sorted(set({names!r}) & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


# --- imports ----------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy():
    assert imported_by("import eq_aimet", HEAVY) == set()


def test_the_check_of_imports_can_fail():
    assert imported_by("import eq_aimet, matplotlib", HEAVY) == {"matplotlib"}
    assert "e2cnn" in imported_by("from eq_aimet.adapters.e2cnn import enn", HEAVY)


def test_names_of_the_public_api_load_at_first_use():
    assert imported_by("from eq_aimet import tag_blocks, equivariance_error, symmetrize", HEAVY) == set()
    assert "aimet_torch" in imported_by("from eq_aimet import equalize_equivariant", HEAVY)


BLOCKER = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in sys.argv[1:]:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocker())
"""


def run_without(code: str, *packages: str) -> subprocess.CompletedProcess[str]:
    return run_python(textwrap.dedent(BLOCKER) + textwrap.dedent(code), *packages)


SYMMETRY = """
    import torch
    from eq_aimet import equivariance_error, layer_blocks, symmetrize, tag_blocks
    from eq_aimet.symmetry import is_symmetric, regular_actions

    layer = torch.nn.Conv2d(1, 4, 3)
    tag_blocks(layer, [1], [4], actions=regular_actions([1], [4], order=4, kernel_size=3))
    symmetrize(layer)
    assert is_symmetric(layer) and layer_blocks(layer).blocks_out == (4,)
    model = torch.nn.Sequential(layer, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    shift = lambda output, element: output.roll(int(element.angle) // 90, 1)
    print(float(equivariance_error(model, torch.rand(1, 1, 9, 9), transform_output=shift)) < 1e-12)
"""


def test_the_symmetry_layer_works_without_e2cnn_and_aimet():
    done = run_without(SYMMETRY, "e2cnn", "escnn", "aimet_torch", "aimet_common", "lightning", "h5py")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_equalization_works_without_e2cnn():
    done = run_without(
        """
        import torch
        from eq_aimet import equalize_equivariant, tag_blocks

        model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
        for layer in (model[0], model[2]):
            tag_blocks(layer, 4)
        print(len(equalize_equivariant(model, dummy_input=torch.rand(1, 4, 9, 9)).equalized))
        """,
        "e2cnn",
        "escnn",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "2"


def test_the_blocker_blocks():
    done = run_without("import e2cnn", "e2cnn")
    assert done.returncode == 1
    assert "No module named 'e2cnn'" in done.stderr


# --- public names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", eq_aimet.__all__)
def test_public_name_resolves_and_is_documented(name):
    value = getattr(eq_aimet, name)
    assert value.__doc__
    assert name in dir(eq_aimet)
    assert f"eq_aimet.{name}" in documented_names()


def documented_names() -> list[str]:
    """Return the names that docs/api.md takes the docstrings of."""
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^\.\. (?:auto\w+|data):: (eq_aimet\.[\w.]+)$", reference, re.MULTILINE)


def test_the_reference_names_nothing_twice_and_nothing_that_is_gone():
    names = documented_names()
    assert len(names) == len(set(names))
    for name in names:
        try:
            pkgutil.resolve_name(name)
        except AttributeError:
            package, _, attribute = name.rpartition(".")
            assert getattr(importlib.import_module(package), attribute) is not None


@pytest.mark.parametrize("package", ["eq_aimet.models", "eq_aimet.symmetry"])
def test_names_of_a_documented_package_are_in_the_reference(package):
    names = importlib.import_module(package).__all__
    documented = {name.rpartition(".")[2] for name in documented_names()}
    assert [name for name in names if name not in documented] == []


ERRORS = [name for name, value in vars(errors).items() if isinstance(value, type)]


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_public_and_has_the_one_base(name):
    assert issubclass(getattr(eq_aimet, name), eq_aimet.EqAimetError)


FUNCTIONS = [name for name in eq_aimet.__all__ if inspect.isfunction(getattr(eq_aimet, name))]


# `assert_bit_exact(report)` only calls `report.assert_bit_exact()`.
@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"assert_bit_exact"}))
def test_public_function_has_an_example_that_runs(name):
    docstring = inspect.getdoc(getattr(eq_aimet, name))
    assert re.search(r"^Examples?:\n    >>> ", docstring, re.MULTILINE)
    assert "+SKIP" not in docstring


def test_hook_specifications_are_documented():
    from eq_aimet import hookspecs

    names = [name for name in vars(hookspecs) if name.startswith("eq_aimet_")]
    reference = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert names
    assert [name for name in names if f":: eq_aimet.hookspecs.{name}\n" not in reference] == []


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No eq_aimet attribute no_such_name"):
        eq_aimet.no_such_name  # noqa: B018


def test_the_changelog_starts_with_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert next(name for name in versions if name != "Unreleased") == eq_aimet.__version__
    assert f"version: {eq_aimet.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# --- layers -----------------------------------------------------------------------------------------------


@pytest.fixture
def package_copy(tmp_path):
    shutil.copytree(ROOT / "eq_aimet", tmp_path / "eq_aimet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    code = """
        import sys
        sys.path.insert(0, "")
        from importlinter.cli import lint_imports
        sys.exit(lint_imports(no_cache=True))
    """
    return run_python(code, cwd=folder)


def test_layers_point_down_only(package_copy):
    done = lint_imports(package_copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "statement", "contract"),
    [
        ("symmetry/orbits.py", "import eq_aimet.export", "Layers point down only"),
        ("export.py", "import e2cnn.nn", "Only the adapters import e2cnn and escnn"),
        (
            "models/mobilenet_v2.py",
            "import aimet_torch",
            "Only eq_aimet.aimet and the experiments import aimet_torch",
        ),
        (
            "symmetry/scaling.py",
            "import h5py",
            "The symmetry layer and the plain modules need torch and numpy only",
        ),
    ],
)
def test_a_forbidden_import_breaks_its_contract(package_copy, file, statement, contract):
    path = package_copy / "eq_aimet" / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n{statement}\n", encoding="utf-8")
    done = lint_imports(package_copy)
    assert done.returncode == 1
    assert re.search(rf"^{re.escape(contract)}\s+BROKEN", done.stdout, re.MULTILINE), done.stdout
