"""All private names of AIMET's that this package uses, each with the reason.

AIMET may rename these without notice. `missing_names` says which of them an installed AIMET lacks; a test
asks it, so that a new version of AIMET shows up as a list of names. The functions import AIMET themselves, so
that this file can be imported although a name is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from eq_aimet.symmetry.calling import as_arguments
from eq_aimet.symmetry.scaling import FloatArray

__all__ = [
    "PRIVATE_NAMES",
    "PrivateName",
    "absorb_bias",
    "concretize_bias_quantizers",
    "missing_names",
    "observe",
]


@dataclass(frozen=True)
class PrivateName:
    """A name that AIMET does not promise to keep.

    Attributes:
        module: The module of AIMET's.
        path: The dotted path inside the module.
        reason: Why this package needs it.
    """

    module: str
    path: str
    reason: str


_CLE = "aimet_torch.cross_layer_equalization"
_FOLD = "aimet_torch.batch_norm_fold"
_ADAROUND = "aimet_torch.adaround.adaround_weight"
_SEQ_MSE = "aimet_torch.seq_mse"

PRIVATE_NAMES = (
    PrivateName(_CLE, "PythonClsImpl", "scales one CLS set; a subclass computes the scales per block"),
    PrivateName(
        _CLE, "PythonClsImpl.compute_scaling_params_for_conv", "the formula of a pair, replaced per block"
    ),
    PrivateName(
        _CLE,
        "PythonClsImpl.compute_scaling_params_for_depthwise_conv",
        "the formula of a triplet, replaced per block",
    ),
    PrivateName(
        _CLE, "GraphSearchUtils.convert_layer_group_to_cls_sets", "pairs layers; told of block-wise layers"
    ),
    PrivateName(_CLE, "fold_all_batch_norms", "the start of an equalization, before anything is changed"),
    PrivateName(_CLE, "GraphSearchUtils.__init__", "builds a graph that models with blocks do not need"),
    PrivateName(_CLE, "GraphSearchUtils.find_layer_groups_to_scale", "finds the layers in a row"),
    PrivateName(
        _CLE,
        "GraphSearchUtils.is_relu_activation_present_in_cls_sets",
        "finds the ReLUs for the high-bias fold",
    ),
    PrivateName(_CLE, "CrossLayerScaling.scale_model", "the start and the end of one scaling"),
    PrivateName(_CLE, "CrossLayerScaling.scale_cls_sets", "where CLS sets are checked, and regions scaled"),
    PrivateName(_CLE, "HighBiasFold.bias_fold", "the high-bias fold, replaced on models with blocks"),
    PrivateName(_CLE, "PythonHbfImpl.bias_fold", "moves bias; the layer's statistics follow it"),
    PrivateName(_CLE, "PythonHbfImpl._absorb_bias", "AIMET's products, so that the bits are AIMET's"),
    PrivateName(_CLE, "cls_supported_activations", "the activations that a CLS set may hold"),
    PrivateName(_FOLD, "BatchNormFold._fold_given_batch_norms", "where a batch norm goes into a layer"),
    PrivateName(
        _FOLD, "BatchNormFold.convert_batchnorm_parameters", "overwrites γ and β, which are noted before"
    ),
    PrivateName(
        "aimet_torch.onnx",
        "_concretize_int32_bias_quantizers",
        "the bias encodings of AIMET's ONNX files, so that the simulation rounds biases as files do",
    ),
    PrivateName(
        "aimet_torch.quantization.affine.quantizer",
        "AffineQuantizerBase._compute_encodings",
        "calibrates one quantizer as `QuantizationSimModel.compute_encodings` calibrates all of them",
    ),
    PrivateName(_ADAROUND, "Adaround._apply_adaround", "where ties are checked before weights are rounded"),
    PrivateName(_ADAROUND, "Adaround._get_adaround_wrapper", "replaced for layers with ties"),
    PrivateName(_ADAROUND, "AdaroundWrapper._init_param", "makes the rounding variables, one per orbit"),
    PrivateName(
        "aimet_torch._base.adaround.adaround_loss",
        "AdaroundLoss.compute_round_loss",
        "sums over the rounding variables; an orbit counts with its members",
    ),
    PrivateName(_SEQ_MSE, "SequentialMse._compute_loss", "the loss of each channel, summed over orbits"),
    PrivateName(
        "aimet_torch.gptvq.gptvq_weight", "GPTVQ._get_candidate_module_name_set", "where GPTVQ is refused"
    ),
)


def concretize_bias_quantizers(model: torch.nn.Module, inputs: Any) -> AbstractContextManager[Any]:
    """Return AIMET's context in which each bias of a simulation has the quantizer that AIMET's files have."""
    from aimet_torch.onnx import _concretize_int32_bias_quantizers

    return _concretize_int32_bias_quantizers(model, *as_arguments(inputs))


def observe(quantizer: Any) -> AbstractContextManager[Any]:
    """Return AIMET's context in which a quantizer passes values through and is calibrated at the end."""
    return quantizer._compute_encodings(passthrough=True)


def absorb_bias(
    activation_is_relu: bool,
    beta: FloatArray,
    gamma: FloatArray,
    weight: FloatArray,
    sink_bias: FloatArray,
    source_bias: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the biases of the source and of the sink after AIMET's own absorption."""
    from aimet_torch.cross_layer_equalization import PythonHbfImpl

    return PythonHbfImpl._absorb_bias(activation_is_relu, beta, gamma, weight, sink_bias, source_bias)


def missing_names(names: tuple[PrivateName, ...] = PRIVATE_NAMES) -> Iterator[str]:
    """Yield one line for each private name that the installed AIMET lacks: the name and what needs it."""
    for name in names:
        owner: Any = import_module(name.module)
        for part in name.path.split("."):
            owner = getattr(owner, part, None)
            if owner is None:
                yield f"{name.module}.{name.path} is gone: {name.reason}"
                break
