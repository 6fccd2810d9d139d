"""A run: its networks trained, equalized, simulated in INT8, deployed, measured and drawn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import safetensors.torch
import torch

from eq_aimet import equivariance_error, export_model
from eq_aimet.experiments.deployment import deploy
from eq_aimet.experiments.pictures import (
    LayerRanges,
    Predictions,
    Stability,
    measure_predictions,
    measure_stability,
    measure_weight_ranges,
)
from eq_aimet.experiments.quantization import equalize, simulate
from eq_aimet.experiments.run_table import TableRow
from eq_aimet.experiments.trained import count_parameters
from eq_aimet.experiments.training import measure_accuracy, quiet_libraries

if TYPE_CHECKING:
    from eq_aimet.experiments.device_figures import DeviceFigures
    from eq_aimet.experiments.results import ResultsFolder
    from eq_aimet.experiments.settings import Settings
    from eq_aimet.experiments.training import ImageDataModule

__all__ = ["NetworkFindings", "quantize_and_measure"]

ROTATED_IMAGES = 16  # test images for the rotation errors; the worst error is reported
STABILITY_IMAGES = 32  # test images that make a full turn
EXAMPLES = 256  # the report's examples are chosen from this number of test images

Status = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True)
class NetworkFindings:
    """The measurements of one network.

    Attributes:
        row: The network's row of the tables.
        ranges: The ranges of the weights before equalization (with folded batch norms) and after it.
        stabilities: The stability of the predictions over a full turn, in "FP32" and in "INT8".
        predictions: The network's INT8 predictions on the first test images.
    """

    row: TableRow
    ranges: tuple[tuple[LayerRanges, ...], tuple[LayerRanges, ...]]
    stabilities: dict[str, Stability]
    predictions: Predictions


def quantize_and_measure(
    name: str,
    model: torch.nn.Module,
    settings: Settings,
    data: ImageDataModule,
    folder: ResultsFolder,
    *,
    status: Status = lambda _: nullcontext(),
) -> NetworkFindings:
    """Return the measurements, after export, equalization, INT8 simulation and export to ONNX.

    Args:
        name: "conventional" or "equivariant".
        model: The trained network in eval mode. The function does not change it.
        settings: The settings of the run.
        data: The data of the run.
        folder: The network's own folder, which receives the files.
        status: A function that opens a context and shows a message while the context is open.

    Raises:
        DataError: A file can't be written.
    """
    is_equivariant = name == "equivariant"
    dummy_input = data.images("train", 1).to(settings.device)
    images = data.images("test", STABILITY_IMAGES).to(settings.device)
    rotated = images[:ROTATED_IMAGES]

    # In the plain torch model each addition is a module, so AIMET sees the additions and quantizes them.
    with status("exporting"), quiet_libraries():
        plain = export_model(model, dummy_input=dummy_input)
        _save_weights(plain, folder)
        fp32 = _judge(plain, rotated, settings, data)

    with status("equalizing"), quiet_libraries():
        ranges = _equalize(plain, dummy_input, "eq_aimet" if is_equivariant else "aimet", folder)

    # Weights and activations become INT8; the activations' ranges come from training images. `simulate`
    # limits the weights to [-64, 63] before measuring, so the table describes the deployed network.
    with status("simulating INT8"), quiet_libraries():
        calibration = data.images("train", settings.calibration_images).to(settings.device)
        sim = simulate(plain, calibration, weights=settings.weights, tied=is_equivariant)
        int8 = _judge(sim.model, rotated, settings, data)

    with status("turning images"), quiet_libraries():
        stabilities = {
            "FP32": measure_stability(plain, images, dtype=torch.float32),
            "INT8": measure_stability(sim.model, images),  # in float64, like the errors
        }
        examples = data.images("test", EXAMPLES).to(settings.device)
        predictions = measure_predictions(sim.model, examples, data.labels("test")[: len(examples)])

    with status("exporting to ONNX and running it"), quiet_libraries():
        figures = deploy(sim, rotated.cpu(), folder)
    row = _row(name, count_parameters(model), fp32, int8, figures)
    return NetworkFindings(row, ranges, stabilities, predictions)


class _Judgement(NamedTuple):
    accuracy: float
    error_90: float
    error_45: float


def _judge(
    model: torch.nn.Module, images: torch.Tensor, settings: Settings, data: ImageDataModule
) -> _Judgement:
    """Return the accuracy, and the rotation errors under turns by multiples of 90° and by 45°.

    The errors are measured in float64. In float32 the order of summation alone flips a few
    roundings.
    """
    return _Judgement(
        measure_accuracy(model, data.test_dataloader(), classes=data.classes, device=settings.device),
        equivariance_error(model, images, elements=[90, 180, 270]).worst,
        equivariance_error(model, images, elements=[45]).worst,
    )


def _row(name: str, parameters: int, fp32: _Judgement, int8: _Judgement, figures: DeviceFigures) -> TableRow:
    return TableRow(
        name,
        parameters,
        fp32_accuracy=fp32.accuracy,
        int8_accuracy=int8.accuracy,
        fp32_error_90=fp32.error_90,
        int8_error_90=int8.error_90,
        fp32_error_45=fp32.error_45,
        int8_error_45=int8.error_45,
        device=figures,
    )


def _save_weights(plain: torch.nn.Module, folder: ResultsFolder) -> None:
    state = {key: value.cpu().contiguous() for key, value in plain.state_dict().items()}
    folder.write_bytes("model.safetensors", safetensors.torch.save(state))


def _equalize(
    plain: torch.nn.Module, dummy_input: torch.Tensor, method: str, folder: ResultsFolder
) -> tuple[tuple[LayerRanges, ...], tuple[LayerRanges, ...]]:
    """Equalize in place, and return the weight ranges before (with folded batch norms) and after."""
    folded = deepcopy(plain)
    equalize(folded, dummy_input, "fold")
    report = equalize(plain, dummy_input, method)
    if report is not None:
        folder.write_text("equalization.txt", f"{report}\n")
        folder.write_json("equalization.json", report.to_dict())
    return measure_weight_ranges(folded), measure_weight_ranges(plain)
