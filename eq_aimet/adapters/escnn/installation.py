"""A check that escnn is installed completely, and the commands that install missing packages."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType

from eq_aimet.adapters.mending.lie_learn_stand_in import offer_stand_in
from eq_aimet.errors import MissingPackageError

__all__ = ["MINIMUM_VERSION", "import_escnn"]

MINIMUM_VERSION = "1.0.11"
# escnn requires py3nj, which has no wheel and needs a Fortran compiler. So pip must not install escnn's
# requirements. The extra of eq_aimet lists all requirements but py3nj.
_COMMANDS = 'pip install "eq_aimet[escnn]"` and `pip install --no-deps escnn'
# Names that `escnn.nn` defines since the minimum version.
_NAMES = (
    "IIDBatchNorm2d",
    "GatedNonLinearityUniform",
    "PointwiseMaxPool2D",
    "TensorProductModule",
    "MaskModule",
)


def import_escnn() -> ModuleType:
    """Return the package `escnn`, imported without its warning about the optional package `py3nj`.

    Raises:
        MissingPackageError: If escnn or a package that it needs is missing, or if escnn is older than 1.0.11.
    """
    offer_stand_in()
    with warnings.catch_warnings():
        # Without py3nj, escnn computes coefficients of SO(3) numerically. Planar groups need no such
        # coefficients.
        warnings.filterwarnings("ignore", message="`py3nj` package not found", category=UserWarning)
        try:
            escnn = import_module("escnn")
            modules = import_module("escnn.nn")
        except ImportError as error:
            missing = error.name or str(error)
            raise MissingPackageError(
                f"escnn cannot be imported: the package `{missing}` is missing or does not work ({error}). "
                f"Type `{_COMMANDS}`."
            ) from error
    absent = [name for name in _NAMES if not hasattr(modules, name)]
    if absent:
        raise MissingPackageError(
            f"escnn {escnn.__version__} is too old: `escnn.nn` has no {', '.join(absent)}. eq_aimet supports "
            f"escnn from version {MINIMUM_VERSION} on. Type `pip install --no-deps --upgrade escnn`."
        )
    return escnn
