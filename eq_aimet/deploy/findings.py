"""The findings of a verification: turned outputs, fidelity, latency, and one finding per runtime."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ElementCheck", "Fidelity", "Latency", "RuntimeFinding"]


@dataclass(frozen=True)
class ElementCheck:
    """The comparison of one output for turned images with the output for the unturned images.

    Attributes:
        element: The turn or flip, e.g. `90°`.
        threads: The number of threads of the runtime.
        changed: The number of images for which any bit of the output changed.
        worst: The largest change, relative to the largest magnitude of the output.
        output: The name of the output: "output" if the model has a single output, else its index or key, e.g.
            "0" or "boxes".
        steps: The largest change in steps of the output's quantizer; `None` for an output without quantizer.
        runtime: The runtime and its version.
    """

    element: str
    threads: int
    changed: int
    worst: float
    output: str = "output"
    steps: float | None = None
    runtime: str = ""


@dataclass(frozen=True)
class RuntimeFinding:
    """The result of one runtime on the file; with several outputs, each figure is that of the worst output.

    Attributes:
        runtime: The runtime and its version.
        top1_agreement: The share of images for which runtime and simulation choose the same class; NaN if no
            output has several channels.
        sqnr_to_sim: The signal to quantization noise ratio of the outputs against the simulation, in dB.
        fell_back: The types of the operators that ran on the host's processor, not on the runtime's device.
        failure: The runtime's own message if it did not run the file, else an empty string.
    """

    runtime: str
    top1_agreement: float = math.nan
    sqnr_to_sim: float = math.nan
    fell_back: tuple[str, ...] = ()
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return f"{self.runtime}: {self.failure}"
        fallen = f"; on the host: {', '.join(self.fell_back)}" if self.fell_back else ""
        return (
            f"{self.runtime}: top-1 agreement with the sim {self.top1_agreement:.2%}, SQNR against the sim "
            f"{self.sqnr_to_sim:.1f} dB{fallen}"
        )


@dataclass(frozen=True)
class Fidelity:
    """The agreement of the file with its simulation; with several outputs, that of the worst output.

    Attributes:
        top1_agreement: The share of images for which file and simulation choose the same class. For outputs
            with a grid, the share of positions. NaN if no output has several channels.
        sqnr_sim: The signal to quantization noise ratio of the simulation's outputs in dB, against the FP32
            model.
        sqnr_deployed: The signal to quantization noise ratio of the file's outputs in dB, against the FP32
            model.
        sqnr_to_sim: The signal to quantization noise ratio of the file's outputs in dB, against the
            simulation.
        reference_images: The number of images that the integer reference evaluated.
        reference_difference: The largest difference of the file's outputs from the integer reference.
    """

    top1_agreement: float
    sqnr_sim: float
    sqnr_deployed: float
    sqnr_to_sim: float
    reference_images: int
    reference_difference: float


@dataclass(frozen=True)
class Latency:
    """Median milliseconds of one run on one thread; FP32 and INT8 take turns.

    Attributes:
        float_model: The time of the FP32 model.
        deployed: The time of the file.
        runs: The number of runs of each model.
    """

    float_model: float
    deployed: float
    runs: int

    @property
    def ratio(self) -> float:
        """The time of the INT8 file divided by the time of the FP32 model."""
        return self.deployed / self.float_model
