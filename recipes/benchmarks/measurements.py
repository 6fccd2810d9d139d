"""The measurements; each function takes a network's group and depthwise kind and returns plain numbers.

Each measurement runs in its own process, so that no other measurement adds to its peak memory or its caches.
"""

from __future__ import annotations

import copy
import resource
import sys
import time
from collections.abc import Callable
from statistics import mean, median

import torch
from networks import (
    INPUT_SHAPE,
    PlainE2cnnMobileNetV2,
    build_equivariant,
    measure_statistics,
    spread_statistics,
)

__all__ = ["MEASUREMENTS"]

REPETITIONS = 5
SEEDS = (0, 1, 2)
CALIBRATION_IMAGES, TEST_IMAGES = 16, 16


def construct_with_e2cnn(group: int, depthwise: str) -> dict[str, float]:
    """Return the seconds to build with e2cnn's own modules and to export each layer, and the peak memory.

    e2cnn has only field-wise depthwise layers.
    """
    assert depthwise == "field"
    import e2cnn.nn as enn  # outside the measured time

    started = time.process_time()
    model = PlainE2cnnMobileNetV2(group)
    built = time.process_time()
    model.eval()  # expands the filters; the export of eq_aimet also starts from the trainable weights
    for module in model.modules():
        if not list(module.children()) or isinstance(module, (enn.R2Conv, enn.InnerBatchNorm)):
            export = getattr(module, "export", None)
            if export is not None:
                export()
    return {"build": built - started, "export": time.process_time() - built, "peak_mib": _peak_mib()}


def construct_with_eq_aimet(group: int, depthwise: str) -> dict[str, float]:
    """Return the seconds to build and to export a whole network of eq_aimet.models, and the peak memory."""
    import eq_aimet.models.equivariant_mobilenet_v2  # noqa: F401 (not part of the time)
    from eq_aimet import export_model

    started = time.process_time()
    model = build_equivariant(group, depthwise)
    built = time.process_time()
    export_model(model, torch.rand(INPUT_SHAPE))
    return {"build": built - started, "export": time.process_time() - built, "peak_mib": _peak_mib()}


def equalize(group: int, depthwise: str) -> dict[str, float]:
    """Return the median seconds of both equalizations; run them in turns on copies of one model."""
    plain = _plain_model(group, depthwise, seed=0)
    seconds: dict[str, list[float]] = {"aimet": [], "eq_aimet": []}
    for _ in range(REPETITIONS):
        for name, equalization in _EQUALIZATIONS.items():
            if name in seconds:
                model = copy.deepcopy(plain)
                started = time.process_time()
                equalization(model)
                seconds[name].append(time.process_time() - started)
    return {name: median(values) for name, values in seconds.items()}


def equalization_memory_of_aimet(group: int, depthwise: str) -> dict[str, float]:
    """Return the peak memory of a process that equalizes with AIMET alone."""
    _EQUALIZATIONS["aimet"](_plain_model(group, depthwise, seed=0))
    return {"peak_mib": _peak_mib()}


def equalization_memory_of_eq_aimet(group: int, depthwise: str) -> dict[str, float]:
    """Return the peak memory of a process that equalizes with eq_aimet."""
    _EQUALIZATIONS["eq_aimet"](_plain_model(group, depthwise, seed=0))
    return {"peak_mib": _peak_mib()}


def quantize_strong(group: int, depthwise: str) -> dict[str, float]:
    """Return the SQNR of INT8 logits in dB after each equalization, for strongly spread random statistics."""
    return _quantize(group, depthwise, sigma=1.0, measured=False)


def quantize_mild(group: int, depthwise: str) -> dict[str, float]:
    """Return the SQNR of INT8 logits in dB after each equalization, for mildly spread random statistics."""
    return _quantize(group, depthwise, sigma=0.5, measured=False)


def quantize_measured(group: int, depthwise: str) -> dict[str, float]:
    """Return the SQNR in dB for statistics that fit the network, as statistics do after training."""
    return _quantize(group, depthwise, sigma=0.5, measured=True)


def _quantize(group: int, depthwise: str, *, sigma: float, measured: bool) -> dict[str, float]:
    """Return the mean SQNR over `SEEDS`, with the equalized FP32 model as the reference.

    For the entries `… from start`, the reference is the FP32 model before equalization.
    """
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        plain = _plain_model(group, depthwise, seed, sigma=sigma, measured=measured)
        images = torch.rand(CALIBRATION_IMAGES + TEST_IMAGES, *INPUT_SHAPE[1:], generator=_generator(seed))
        calibration, test = images.split([CALIBRATION_IMAGES, TEST_IMAGES])
        with torch.no_grad():
            start = plain(test)
            for name, equalization in _EQUALIZATIONS.items():
                model = copy.deepcopy(plain)
                equalization(model)
                reference, quantized = model(test), _simulate(model, calibration)(test)
                found.setdefault(name, []).append(_sqnr(reference, quantized))
                found.setdefault(f"{name} from start", []).append(_sqnr(start, quantized))
    return {name: mean(values) for name, values in found.items()}


def _plain_model(
    group: int, depthwise: str, seed: int, *, sigma: float = 1.0, measured: bool = True
) -> torch.nn.Module:
    from eq_aimet import export_model

    torch.manual_seed(seed)
    model = build_equivariant(group, depthwise).eval()
    spread_statistics(model, _generator(seed), sigma)
    if measured:
        measure_statistics(model, torch.rand(8, *INPUT_SHAPE[1:], generator=_generator(1000 + seed)))
    return export_model(model, torch.rand(INPUT_SHAPE))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _fold_batch_norms(model: torch.nn.Module) -> None:
    from aimet_torch.batch_norm_fold import fold_all_batch_norms

    fold_all_batch_norms(model, INPUT_SHAPE, dummy_input=torch.rand(INPUT_SHAPE))


def _equalize_by_aimet(model: torch.nn.Module) -> None:
    from aimet_torch.cross_layer_equalization import equalize_model

    equalize_model(model, dummy_input=torch.rand(INPUT_SHAPE))


def _equalize_by_eq_aimet(model: torch.nn.Module) -> None:
    from eq_aimet import equalize_equivariant

    equalize_equivariant(model, dummy_input=torch.rand(INPUT_SHAPE))


_EQUALIZATIONS: dict[str, Callable[[torch.nn.Module], None]] = {
    "fold": _fold_batch_norms,
    "aimet": _equalize_by_aimet,
    "eq_aimet": _equalize_by_eq_aimet,
}


def _simulate(model: torch.nn.Module, calibration: torch.Tensor) -> torch.nn.Module:
    """Return the INT8 simulation with one encoding per weight tensor."""
    from aimet_torch.common.quantsim_config.utils import get_path_for_per_tensor_config
    from aimet_torch.quantsim import QuantizationSimModel

    sim = QuantizationSimModel(
        model, dummy_input=calibration[:1], config_file=get_path_for_per_tensor_config()
    )
    sim.compute_encodings(lambda quantized: quantized(calibration))
    return sim.model


def _sqnr(reference: torch.Tensor, quantized: torch.Tensor) -> float:
    """Return 10 log10(Σ fp32² / Σ (fp32 − int8)²) in dB."""
    signal, noise = reference.double().square().sum(), (reference - quantized).double().square().sum()
    return float(10 * torch.log10(signal / noise))


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB


MEASUREMENTS: dict[str, Callable[[int, str], dict[str, float]]] = {
    function.__name__: function
    for function in (
        construct_with_e2cnn,
        construct_with_eq_aimet,
        equalize,
        equalization_memory_of_aimet,
        equalization_memory_of_eq_aimet,
        quantize_strong,
        quantize_mild,
        quantize_measured,
    )
}
