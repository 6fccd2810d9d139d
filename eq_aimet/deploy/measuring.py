"""Measurements of a file in a runtime: signal to noise ratio, agreement of classes, latency."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from eq_aimet.deploy.findings import Latency
from eq_aimet.deploy.runtimes.runtime import OpenedFile

__all__ = ["measure_latency", "signal_to_noise", "top1_agreement", "worst_agreement", "worst_ratio"]


def signal_to_noise(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Return 10·log₁₀ of the reference's power over the power of the difference, in dB.

    The result is infinite if there is no difference.

    Example:
        >>> round(signal_to_noise(np.array([1.0, 0.9]), np.array([1.0, 1.0])), 1)
        23.0
    """
    exact = reference.astype(np.float64)
    noise = float(np.square(outputs.astype(np.float64) - exact).sum())
    signal = float(np.square(exact).sum())
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def top1_agreement(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of images (or grid positions) for which both arrays have the same largest channel.

    The result is NaN if the outputs do not have several channels.
    """
    if outputs.ndim < 2 or outputs.shape[1] < 2:
        return math.nan
    return float((outputs.argmax(1) == reference.argmax(1)).mean())


def worst_agreement(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Return the smallest top-1 agreement of the outputs with several channels; NaN without such outputs."""
    agreements = [top1_agreement(output, reference[name]) for name, output in outputs.items()]
    return min((one for one in agreements if not math.isnan(one)), default=math.nan)


def worst_ratio(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> float:
    """Return the smallest signal to noise ratio of all outputs in dB."""
    return min(signal_to_noise(output, reference[name]) for name, output in outputs.items())


def measure_latency(
    deployed: OpenedFile,
    float_model: OpenedFile,
    batch: Sequence[np.ndarray],
    float_batch: Sequence[np.ndarray],
    runs: int,
) -> Latency:
    """Return the median milliseconds of both files, run in turns so that both meet the same disturbances."""
    pairs = ((float_model, float_batch), (deployed, batch))
    times: tuple[list[float], list[float]] = ([], [])
    for file, images in pairs * 2:
        file.run(images)
    for _ in range(runs):
        for (file, images), measured in zip(pairs, times, strict=True):
            start = time.perf_counter()
            file.run(images)
            measured.append(time.perf_counter() - start)
    return Latency(1e3 * float(np.median(times[0])), 1e3 * float(np.median(times[1])), runs)
