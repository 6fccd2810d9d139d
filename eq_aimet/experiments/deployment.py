"""The export of a simulation to ONNX files, and their measurement in onnxruntime."""

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

LATENCY_RUNS = 300  # runs of each ONNX file, alternating; the median time is reported


def deploy(
    sim: QuantizationSimModel, images: torch.Tensor, folder: ResultsFolder, *, runs: int = LATENCY_RUNS
) -> DeviceFigures:
    """Return the figures of the INT8 file in onnxruntime, after writing both ONNX files and the reports.

    The function moves the simulation to the CPU.

    Args:
        sim: The simulation, ready to be exported.
        images: The images that are turned, of shape (images, channels, n, n).
        folder: The folder that receives `model.onnx`, `model.float.onnx`, `model.encodings` and
            `verification.*`.
        runs: The number of times that the latency of one image is measured.

    Raises:
        DataError: A file can't be written.
    """
    sim.model.cpu()
    path = folder.path / "model.onnx"
    exported = export_onnx(sim, images[:1], path, float_model=True)
    try:
        found = verify_onnx(path, sim, images, runs=runs)
    except OSError as error:  # verify_onnx writes temporary files, and that disk may be full
        raise DataError(f"`{path}`: could not be verified ({error}). Free some space.") from error
    folder.write_text("verification.txt", f"{exported}\n\n{found}\n")
    folder.write_json("verification.json", {"export": exported.to_dict(), "verification": found.to_dict()})
    return DeviceFigures.from_report(found, Path(exported.float_model))
