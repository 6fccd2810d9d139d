"""Equivariant networks through AIMET: export, block-wise equalization and INT8 simulation.

The public names load what they need at first use, so that importing the package is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eq_aimet.registration import register_with_aimet

if TYPE_CHECKING:
    from eq_aimet.aimet.cross_layer_equalization import equalize_equivariant
    from eq_aimet.aimet.data_free import calibrate_without_data
    from eq_aimet.aimet.hooks import equivariant_hooks
    from eq_aimet.aimet.onnx_export import export_onnx
    from eq_aimet.aimet.onnx_verification import verify_onnx
    from eq_aimet.aimet.portable import make_portable
    from eq_aimet.aimet.quantsim import tie_encodings
    from eq_aimet.deploy.verification import assert_bit_exact
    from eq_aimet.errors import EqAimetError
    from eq_aimet.export import export_model
    from eq_aimet.hookspecs import hookimpl
    from eq_aimet.plugins import layer_blocks, plugin_manager
    from eq_aimet.symmetry.blocks import tag_blocks
    from eq_aimet.symmetry.equivariance import assert_equivariant, equivariance_error
    from eq_aimet.symmetry.orbits import symmetrize

__all__ = [
    "export_model",
    "equalize_equivariant",
    "equivariant_hooks",
    "calibrate_without_data",
    "tie_encodings",
    "make_portable",
    "export_onnx",
    "verify_onnx",
    "assert_bit_exact",
    "tag_blocks",
    "layer_blocks",
    "symmetrize",
    "equivariance_error",
    "assert_equivariant",
    "hookimpl",
    "plugin_manager",
    "EqAimetError",
]

__version__ = "0.1.0"

register_with_aimet()

_HOME = {
    "export_model": "eq_aimet.export",
    "equalize_equivariant": "eq_aimet.aimet.cross_layer_equalization",
    "equivariant_hooks": "eq_aimet.aimet.hooks",
    "calibrate_without_data": "eq_aimet.aimet.data_free",
    "tie_encodings": "eq_aimet.aimet.quantsim",
    "make_portable": "eq_aimet.aimet.portable",
    "export_onnx": "eq_aimet.aimet.onnx_export",
    "verify_onnx": "eq_aimet.aimet.onnx_verification",
    "assert_bit_exact": "eq_aimet.deploy.verification",
    "tag_blocks": "eq_aimet.symmetry.blocks",
    "layer_blocks": "eq_aimet.plugins",
    "symmetrize": "eq_aimet.symmetry.orbits",
    "equivariance_error": "eq_aimet.symmetry.equivariance",
    "assert_equivariant": "eq_aimet.symmetry.equivariance",
    "hookimpl": "eq_aimet.hookspecs",
    "plugin_manager": "eq_aimet.plugins",
    "EqAimetError": "eq_aimet.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
