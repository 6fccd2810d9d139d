"""Measuring in the runtime: outputs under the exact elements, signal to noise, latency in turns."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch

from eq_aimet.deploy.onnx.session import run_session
from eq_aimet.deploy.onnx.verification_report import ElementCheck, Latency
from eq_aimet.symmetry.elements import Element

__all__ = ["check_elements", "measure_latency", "signal_to_noise", "top1_agreement"]


def check_elements(
    session: onnxruntime.InferenceSession,
    images: torch.Tensor,
    elements: Sequence[Element],
    threads: int,
) -> tuple[ElementCheck, ...]:
    """Return for each element how the outputs for turned images differ, bit by bit.

    An output with a grid, (images, channels, height, width), is turned too; others are invariant.
    """
    reference = run_session(session, images.numpy())
    largest = float(np.abs(reference).max()) or 1.0
    checks = []
    for element in elements:
        output = run_session(session, element.turn(images).numpy())
        expected = element.turn(torch.from_numpy(reference)).numpy() if reference.ndim == 4 else reference
        apart = np.abs(output.astype(np.float64) - expected).reshape(len(images), -1)
        changed = int((output != expected).reshape(len(images), -1).any(1).sum())
        checks.append(ElementCheck(str(element), threads, changed, float(apart.max()) / largest))
    return tuple(checks)


def signal_to_noise(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Return 10·log₁₀ of the reference's power over that of the difference, in dB; infinite without one.

    Example:
        >>> round(signal_to_noise(np.array([1.0, 0.9]), np.array([1.0, 1.0])), 1)
        23.0
    """
    noise = float(np.square(outputs.astype(np.float64) - reference).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def top1_agreement(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of images, and positions of a grid, with the largest value in the same channel."""
    return float((outputs.argmax(1) == reference.argmax(1)).mean())


def measure_latency(
    deployed: onnxruntime.InferenceSession,
    float_model: onnxruntime.InferenceSession,
    image: np.ndarray,
    runs: int,
) -> Latency:
    """Return the median milliseconds of both, run in turns so that both meet the same disturbances."""
    sessions = (float_model, deployed)
    times: tuple[list[float], list[float]] = ([], [])
    for session in sessions * 2:
        run_session(session, image)
    for _ in range(runs):
        for session, measured in zip(sessions, times, strict=True):
            measured.append(_seconds(session, image))
    return Latency(1e3 * float(np.median(times[0])), 1e3 * float(np.median(times[1])), runs)


def _seconds(session: onnxruntime.InferenceSession, image: np.ndarray) -> float:
    start = time.perf_counter()
    run_session(session, image)
    return time.perf_counter() - start
