"""The names of AIMET's equalization that the hooks patch; `hooks.py` draws the sequence of the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aimet_torch import cross_layer_equalization as cle
from aimet_torch.batch_norm_fold import BatchNormFold

from eq_aimet.aimet.equalization.fold_interception import (
    converting_norm,
    folding_all_norms,
    folding_bias,
    folding_norms,
    folding_pair,
)
from eq_aimet.aimet.equalization.scaling_interception import (
    converting,
    finding_layers,
    finding_relus,
    scaling_model,
    scaling_one_set,
    scaling_sets,
    searching,
)

__all__ = ["changes_of_aimet"]


def changes_of_aimet() -> list[tuple[Any, str, Any]]:
    """Return the changes that make AIMET block-aware: owner, name and new value of each attribute."""
    patched: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
        (cle, "PythonClsImpl", scaling_one_set),
        (cle.GraphSearchUtils, "convert_layer_group_to_cls_sets", converting),
        (cle, "fold_all_batch_norms", folding_all_norms),
        (cle.GraphSearchUtils, "__init__", searching),
        (cle.GraphSearchUtils, "find_layer_groups_to_scale", finding_layers),
        (cle.GraphSearchUtils, "is_relu_activation_present_in_cls_sets", finding_relus),
        (cle.CrossLayerScaling, "scale_model", scaling_model),
        (cle.CrossLayerScaling, "scale_cls_sets", scaling_sets),
        (cle.HighBiasFold, "bias_fold", folding_bias),
        (cle.PythonHbfImpl, "bias_fold", folding_pair),
        (BatchNormFold, "_fold_given_batch_norms", folding_norms),
        (BatchNormFold, "convert_batchnorm_parameters", converting_norm),
    )
    return [(owner, name, replace(getattr(owner, name))) for owner, name, replace in patched]
