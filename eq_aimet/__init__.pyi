from .aimet.equalization.cross_layer_equalization import equalize_equivariant
from .aimet.equalization.hooks import equivariant_hooks
from .aimet.onnx.export import export_onnx
from .aimet.onnx.verification import verify_onnx
from .aimet.rounding.bias_correction import correct_bias
from .aimet.simulation.data_free import calibrate_without_data
from .aimet.simulation.portable_weights import make_portable
from .aimet.simulation.tied_encodings import tie_encodings
from .deploy.onnx.verification_report import assert_bit_exact
from .errors import EqAimetError
from .export import export_model
from .hookspecs import hookimpl
from .plugins import layer_blocks, plugin_manager
from .symmetry.blocks import tag_blocks
from .symmetry.equivariance import assert_equivariant, equivariance_error
from .symmetry.orbits import asymmetry, is_symmetric, symmetrize

__all__ = [
    "export_model",
    "equalize_equivariant",
    "equivariant_hooks",
    "calibrate_without_data",
    "correct_bias",
    "tie_encodings",
    "make_portable",
    "export_onnx",
    "verify_onnx",
    "assert_bit_exact",
    "tag_blocks",
    "layer_blocks",
    "symmetrize",
    "is_symmetric",
    "asymmetry",
    "equivariance_error",
    "assert_equivariant",
    "hookimpl",
    "plugin_manager",
    "EqAimetError",
]

__version__: str
