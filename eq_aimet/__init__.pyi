from .adapters.weight_transfer import carry_weights
from .aimet.equalization.cross_layer_equalization import equalize_equivariant
from .aimet.equalization.hooks import EquivariantHooks
from .aimet.equalization.report import (
    ClsSetRecord,
    EqualizationReport,
    LayerRecord,
    NormRecord,
    RegionRecord,
)
from .aimet.hooks import equivariant_hooks
from .aimet.onnx.export import export_onnx
from .aimet.onnx.verification import verify_onnx
from .aimet.rounding.bias_correction import correct_bias
from .aimet.rounding.bias_report import BiasCorrectionReport
from .aimet.rounding.tied_training import TiedParameters, tie_parameters
from .aimet.simulation.data_free import calibrate_without_data
from .aimet.simulation.data_free_report import CalibrationReport
from .aimet.simulation.portable_weights import PortableReport, make_portable
from .aimet.simulation.tied_encodings import TyingReport, tie_encodings
from .deploy.onnx.export_report import OnnxReport
from .deploy.verification_report import VerificationReport, assert_bit_exact
from .errors import (
    AsymmetryError,
    DataError,
    EqAimetError,
    EqualizationError,
    EquivarianceError,
    ExportError,
    ForwardError,
    InvalidArgumentError,
    MissingPackageError,
    PluginError,
)
from .export import export_model
from .hookspecs import hookimpl
from .plugins import layer_blocks, plugin_manager
from .symmetry.actions import Action, regular_actions
from .symmetry.blocks import LayerBlocks, TagHandle, tag_blocks
from .symmetry.elements import Element
from .symmetry.equivariance import assert_equivariant, equivariance_error
from .symmetry.equivariance_report import EquivarianceReport
from .symmetry.orbits import asymmetry, is_symmetric, symmetrize

__all__ = [
    "export_model",
    "carry_weights",
    "equalize_equivariant",
    "equivariant_hooks",
    "calibrate_without_data",
    "correct_bias",
    "tie_encodings",
    "tie_parameters",
    "make_portable",
    "export_onnx",
    "verify_onnx",
    "assert_bit_exact",
    "tag_blocks",
    "layer_blocks",
    "regular_actions",
    "symmetrize",
    "is_symmetric",
    "asymmetry",
    "equivariance_error",
    "assert_equivariant",
    "hookimpl",
    "plugin_manager",
    "Action",
    "Element",
    "LayerBlocks",
    "TagHandle",
    "EquivariantHooks",
    "EqualizationReport",
    "LayerRecord",
    "ClsSetRecord",
    "RegionRecord",
    "NormRecord",
    "BiasCorrectionReport",
    "CalibrationReport",
    "TiedParameters",
    "TyingReport",
    "PortableReport",
    "OnnxReport",
    "VerificationReport",
    "EquivarianceReport",
    "EqAimetError",
    "InvalidArgumentError",
    "ExportError",
    "EqualizationError",
    "AsymmetryError",
    "EquivarianceError",
    "ForwardError",
    "DataError",
    "MissingPackageError",
    "PluginError",
]

__version__: str
