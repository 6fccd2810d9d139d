"""From a trained network to its INT8 simulation: export, equalization, AIMET's QuantSim."""

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
"""AIMET's batch-norm fold; with its CLE; with its high-bias fold, too; and the same with blocks.

"eq_aimet" absorbs high biases where that is exact, "eq_aimet-all" wherever AIMET does.
"""

_HIGH_BIAS_FOLDS = {"cle": "off", "eq_aimet": "unpadded", "eq_aimet-all": "all"}


def equalize(model: torch.nn.Module, dummy_input: torch.Tensor, method: str) -> EqualizationReport | None:
    """Equalize a plain model in place, and return the report, or None for AIMET's own methods.

    Args:
        model: As `export_model` returns it.
        dummy_input: A batch of one image.
        method: One of `EQUALIZATIONS`.

    Raises:
        InvalidArgumentError: There is no such method.
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
        model: The equalized model; it is left as it is.
        images: What the ranges of the activations are taken from, on the model's device.
        weights: "per-tensor" or "per-channel", the ranges of the weights.
        tied: Whether a rotation block has one range where AIMET gives each channel its own.
        portable: Whether the weights are limited to [-64, 63], so that no device saturates.
        standard_deviations: If given, the activations' ranges come from the batch norms' statistics, this
            many standard deviations about the mean, and of `images` only the shape counts.

    Raises:
        InvalidArgumentError: An argument is not possible, or there are no statistics.
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
