"""The ONNX files of a simulation, and what they do in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eq_aimet import export_onnx, verify_onnx
from eq_aimet.errors import DataError
from eq_aimet.experiments.device_figures import DeviceFigures

if TYPE_CHECKING:
    import torch
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet.experiments.results import ResultsFolder

__all__ = ["deploy"]

LATENCY_RUNS = 300  # of either ONNX file, in turns, of which the median counts


def deploy(
    sim: QuantizationSimModel, images: torch.Tensor, folder: ResultsFolder, *, runs: int = LATENCY_RUNS
) -> DeviceFigures:
    """Return what the INT8 file does in onnxruntime, after writing it, the FP32 file and the reports.

    Moves the simulation to the CPU.

    Args:
        sim: Ready to be exported.
        images: Those that are turned, (images, channels, n, n).
        folder: Gets `model.onnx`, `model.float.onnx`, `model.encodings` and `verification.*`.
        runs: How often the time of one image is taken.

    Raises:
        DataError: A file can't be written.
    """
    sim.model.cpu()
    path = folder.path / "model.onnx"
    exported = export_onnx(sim, images[:1], path, float_model=True)
    try:
        found = verify_onnx(path, sim, images, runs=runs)
    except OSError as error:  # it works in the folder for temporary files, which may be full
        raise DataError(f"`{path}`: could not be verified ({error}). Free some space.") from error
    folder.write_text("verification.txt", f"{exported}\n\n{found}\n")
    folder.write_json("verification.json", {"export": exported.to_dict(), "verification": found.to_dict()})
    return DeviceFigures.from_report(found, Path(exported.float_model))
