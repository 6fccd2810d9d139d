"""Subtracts the systematic error of quantized weights from the biases: `correct_bias`.

Rounding a layer's weights from W to Ŵ moves the mean of its output by (Ŵ − W) E[x] (Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, equation 17). A change of
the bias can cancel this error exactly. The means come from data, or from the statistics of the batch norms.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from aimet_torch.quantsim import QuantizationSimModel
from aimet_torch.utils import remove_activation_quantizers

from eq_aimet.aimet.rounding.bias_report import BiasCorrectionReport, CorrectedLayer
from eq_aimet.aimet.rounding.biased_layers import BiasedLayer, biased_layers
from eq_aimet.aimet.rounding.expected_errors import expected_errors
from eq_aimet.aimet.rounding.measured_means import DataRuns
from eq_aimet.aimet.rounding.tied_layers import check_still_tied
from eq_aimet.aimet.simulation.export_readiness import check_encodings
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.snapshot import Snapshot

__all__ = ["correct_bias"]

logger = logging.getLogger(__name__)

Forward = Callable[[torch.nn.Module], Any]


def correct_bias(sim: QuantizationSimModel, forward: Forward | None = None) -> BiasCorrectionReport:
    """Subtract the quantization error of each layer's mean output from the layer's bias; works in place.

    With `forward` the errors are measured: the simulation runs with and without its quantizers, and each
    layer is corrected in the order in which the layers run. Without `forward` the errors are computed: the
    input of a layer has the distribution that the batch norms before it give (a normal one, clipped by the
    ReLU), and the correction needs no data. Channels that the group ties get one correction, so that their
    biases stay equal. Conventional networks are corrected as well.

    The encodings of weights do not change. With `forward`, the encodings of the layers' outputs are
    computed again, since the corrected outputs may leave the former ranges; frozen encodings stay.
    `make_portable` rounds biases, so call it afterwards.

    Args:
        sim: AIMET's simulation with its encodings computed. Without `forward`, the batch norms must have been
            folded by `equalize_equivariant` or by AIMET's functions inside `equivariant_hooks`.
        forward: A function that runs the model on data, as for `sim.compute_encodings`. It is called seven
            times and must give the model the same images each time.

    Returns:
        The amount that was subtracted from the bias of each layer, and the error of the layer's mean before
        and after.

    Raises:
        InvalidArgumentError: If `sim` is not AIMET's or lacks encodings, the weights of a layer are no longer
            tied, or the encoding of a bias is frozen; if `forward` fails, gives different images on each
            call, or gives values that are not finite; or if `forward` is missing and the model has no
            statistics. The simulation stays unchanged.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import correct_bias
        >>> model, images = torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.rand(64, 8)
        >>> sim = QuantizationSimModel(model, dummy_input=images, default_param_bw=4)
        >>> def forward(model):
        ...     model(images)
        >>> sim.compute_encodings(forward)
        >>> report = correct_bias(sim, forward)
        >>> report.layers[0].error_after < 0.2 * report.layers[0].error_before
        True
    """
    check_encodings(sim)
    if forward is not None and not callable(forward):
        raise InvalidArgumentError(
            "forward",
            received=f"a {type(forward).__name__}",
            expected="a function that runs the model on data, as for `sim.compute_encodings`",
            remedy="Write `correct_bias(sim, lambda model: model(images))`, or leave it out to use the "
            "statistics of the batch norms.",
        )
    check_still_tied("sim", sim.model, "sim.model")
    layers, left_out = biased_layers(sim)
    snapshot = Snapshot(sim.model)
    try:
        if forward is None:
            report = _correct_analytically(sim, layers, left_out)
        else:
            report = _correct_empirically(sim, forward, layers, left_out)
    except BaseException:
        snapshot.restore()
        raise
    logger.info("Corrected biases:\n%s", report)
    return report


def _correct_empirically(
    sim: QuantizationSimModel,
    forward: Forward,
    layers: list[BiasedLayer],
    left_out: list[tuple[str, str]],
) -> BiasCorrectionReport:
    runs = DataRuns(sim, forward, layers)
    before = runs.errors()
    with remove_activation_quantizers(sim.model):
        runs.correct()
    # The corrected outputs may leave the former ranges. With new ranges, the correction also covers the
    # effect of clipping and rounding of the activations on the means.
    runs.calibrate_outputs()
    for _ in range(2):
        runs.correct(again=True)
    after = runs.errors()
    left_out += [(layer.name, "it does not run") for layer in layers if layer.name not in before]
    entries = [_entry(layer, before[layer.name], after[layer.name]) for layer in runs.ordered_layers]
    return BiasCorrectionReport("empirical", tuple(entries), tuple(left_out))


def _correct_analytically(
    sim: QuantizationSimModel, layers: list[BiasedLayer], left_out: list[tuple[str, str]]
) -> BiasCorrectionReport:
    errors, reasons = expected_errors(sim, layers)
    entries = []
    for layer in layers:
        if layer.module in errors:
            error = errors[layer.module]
            layer.set_change(-error)
            entries.append(_entry(layer, error, error + layer.change))
        else:
            left_out.append((layer.name, reasons[layer.module]))
    return BiasCorrectionReport("analytic", tuple(entries), tuple(left_out))


def _entry(layer: BiasedLayer, before: torch.Tensor, after: torch.Tensor) -> CorrectedLayer:
    root_mean_squares = [float(layer.tied(error).square().mean().sqrt()) for error in (before, after)]
    return CorrectedLayer(layer.name, tuple((-layer.change).tolist()), *root_mean_squares)
