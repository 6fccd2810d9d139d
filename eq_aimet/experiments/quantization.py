"""The steps from a plain model to its INT8 simulation: equalization and AIMET's QuantSim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.cross_layer_equalization import CrossLayerScaling, equalize_model
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet import equalize_equivariant, make_portable, tie_encodings
from eq_aimet.errors import InvalidArgumentError

if TYPE_CHECKING:
    from eq_aimet.aimet.equalization.report import EqualizationReport

__all__ = ["EQUALIZATIONS", "equalize", "simulate"]

EQUALIZATIONS = ("fold", "aimet-cle", "aimet", "cle", "eq_aimet", "eq_aimet-all")
"""The equalization methods.

"fold" is AIMET's batch-norm fold. "aimet-cle" adds AIMET's CLE, and "aimet" also adds AIMET's high-bias fold.
"cle", "eq_aimet" and "eq_aimet-all" equalize rotation blocks: "cle" without a high-bias fold, "eq_aimet"
with the high-bias fold where the fold is exact, and "eq_aimet-all" with it wherever AIMET applies it.
"""

_HIGH_BIAS_FOLDS = {"cle": "off", "eq_aimet": "unpadded", "eq_aimet-all": "all"}


def equalize(model: torch.nn.Module, dummy_input: torch.Tensor, method: str) -> EqualizationReport | None:
    """Equalize a plain model in place, and return the report, or None for AIMET's own methods.

    Args:
        model: The plain model that `export_model` returned.
        dummy_input: A batch of one image.
        method: One of `EQUALIZATIONS`.

    Raises:
        InvalidArgumentError: `method` is not one of `EQUALIZATIONS`.
    """
    if method in _HIGH_BIAS_FOLDS:
        return equalize_equivariant(model, dummy_input=dummy_input, high_bias_fold=_HIGH_BIAS_FOLDS[method])
    if method == "aimet":
        equalize_model(model, dummy_input=dummy_input)
    elif method in ("fold", "aimet-cle"):
        fold_all_batch_norms(model, None, dummy_input=dummy_input)
        if method == "aimet-cle":
            CrossLayerScaling.scale_model(model, dummy_input=dummy_input)
    else:
        raise InvalidArgumentError(
            "method",
            received=repr(method),
            expected=f"one of {', '.join(EQUALIZATIONS)}",
            remedy='Take "eq_aimet" for equivariant networks and "aimet" for others.',
        )
    return None


def simulate(
    model: torch.nn.Module,
    images: torch.Tensor,
    *,
    weights: str = "per-tensor",
    tied: bool = True,
    portable: bool = True,
    standard_deviations: float | None = None,
) -> QuantizationSimModel:
    """Return AIMET's simulation of a plain model in INT8, ready to measure and to export.

    Args:
        model: The equalized model. The function does not change it.
        images: The images from which the ranges of the activations are measured, on the model's device.
        weights: "per-tensor" or "per-channel", the kind of weight ranges.
        tied: Whether all channels of a rotation block share one range where AIMET gives each channel its own.
        portable: Whether the weights are limited to [-64, 63], so that no device saturates.
        standard_deviations: The half width of the activations' ranges, in standard deviations about the
            mean. If it is given, the ranges come from the batch norms' statistics, and only the shape of
            `images` matters.

    Raises:
        InvalidArgumentError: An argument has an invalid value, or the model has no batch-norm statistics.
    """
    path = {"per-tensor": get_path_for_per_tensor_config, "per-channel": get_path_for_per_channel_config}
    if weights not in path:
        raise InvalidArgumentError(
            "weights",
            received=repr(weights),
            expected="per-tensor or per-channel",
            remedy="Take per-tensor for small files.",
        )
    dummy_input = images[:1]
    sim = QuantizationSimModel(model, dummy_input=dummy_input, config_file=path[weights]())
    if standard_deviations is None:
        sim.compute_encodings(lambda simulated: _run(simulated, images))
    else:
        from eq_aimet import calibrate_without_data

        calibrate_without_data(sim, dummy_input, standard_deviations=standard_deviations)
    if tied:
        tie_encodings(sim)
    if portable:
        make_portable(sim, dummy_input)
    return sim


def _run(simulated: Any, images: torch.Tensor) -> None:
    with torch.no_grad():
        for batch in images.split(64):
            simulated(batch)
