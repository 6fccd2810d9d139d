"""Measures the INT8 files of `export_onnx` in onnxruntime, and prints the tables of docs/deploy.md.

    $ python recipes/benchmarks/deploy.py             # about 10 minutes on two idle cores
    $ python recipes/benchmarks/deploy.py --write     # also writes them into docs/deploy.md
    $ python recipes/benchmarks/deploy.py --width 0.5 --groups 4

The networks have random weights and run on one thread, one image at a time. The script first exports all
files. Then one process measures the files in turns, so that other load on the machine affects all files of a
table alike.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from networks import measure_statistics, spread_statistics
from pages import DOCS, heading, origin, publish, row

from eq_aimet.experiments.training import quiet_libraries

PAGE = DOCS / "deploy.md"
PACKAGES = ("eq_aimet", "aimet-torch", "onnxruntime", "torch")
INPUT_SIZE = 95
CALIBRATION_IMAGES, TEST_IMAGES = 8, 32
RUNS, OPENINGS = 60, 15
CONVENTIONAL = "conventional"


@dataclass(frozen=True)
class Deployed:
    """The files of one network, the results of their verification, and the seconds of the export."""

    name: str
    orbits: Path
    plain: Path
    unarranged: Path
    float_model: Path
    changed: int
    agreement: float
    sqnr_sim: float
    sqnr_deployed: float
    seconds: float


def main() -> None:
    """Export, measure and print the tables; write them into the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8], help="orders N of the groups C_N")
    parser.add_argument("--width", type=float, default=1.0, help="the networks' width multiplier")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with quiet_libraries(), tempfile.TemporaryDirectory() as folder:
        lines = report(Path(folder), arguments.groups, arguments.width)
        publish(lines, PAGE, write=arguments.write)


def report(folder: Path, groups: list[int], width: float) -> Iterator[str]:
    """Yield the lines of the report, each table right after its measurement."""
    yield origin(PACKAGES)
    networks = {CONVENTIONAL: lambda: conventional(width)}
    for group in groups:
        for kind in ("channel", "field"):
            networks[f"C{group}, {kind}-wise"] = lambda group=group, kind=kind: equivariant(
                group, kind, width
            )
    files = [deploy(name, build(), folder) for name, build in networks.items()]
    yield from size_table(files)
    yield from latency_table(files)
    yield from exactness_table(files)


def conventional(width: float) -> torch.nn.Module:
    """Return MobileNetV2 in eval mode, with random weights and batch norms that fit them."""
    from eq_aimet.models import MobileNetV2

    return _fitted(MobileNetV2(width=width, input_size=INPUT_SIZE))


def equivariant(group: int, kind: str, width: float) -> torch.nn.Module:
    """Return the plain model of an equivariant MobileNetV2 with random weights and fitting batch norms."""
    from eq_aimet import export_model
    from eq_aimet.models import EquivariantMobileNetV2

    network = EquivariantMobileNetV2(group=group, depthwise=kind, width=width, input_size=INPUT_SIZE)
    return export_model(_fitted(network), _images(1))


def deploy(name: str, model: torch.nn.Module, folder: Path) -> Deployed:
    """Write all files of a network: equalize, simulate, limit the weights, export and verify."""
    from aimet_torch.cross_layer_equalization import equalize_model
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet import equalize_equivariant, export_onnx, make_portable, tie_encodings, verify_onnx

    dummy_input = _images(1)
    if name == CONVENTIONAL:
        equalize_model(model, dummy_input=dummy_input)
    else:
        equalize_equivariant(model, dummy_input=dummy_input)
    sim = QuantizationSimModel(model, dummy_input=dummy_input)
    calibration = _images(CALIBRATION_IMAGES)
    sim.compute_encodings(lambda quantized: quantized(calibration))
    if name != CONVENTIONAL:
        tie_encodings(sim)
    make_portable(sim, dummy_input)
    files = {kind: folder / f"{name}-{kind}.onnx" for kind in ("orbits", "plain", "unarranged")}

    started = time.perf_counter()
    export_onnx(sim, dummy_input, files["orbits"], float_model=True)
    checked = verify_onnx(files["orbits"], sim, _images(TEST_IMAGES))
    seconds = time.perf_counter() - started
    export_onnx(sim, dummy_input, files["plain"], storage="plain")
    export_onnx(sim, dummy_input, files["unarranged"], storage="plain", arranged=False)
    return Deployed(
        name,
        files["orbits"],
        files["plain"],
        files["unarranged"],
        files["orbits"].with_suffix(".float.onnx"),
        sum(check.changed for check in checked.elements),
        checked.fidelity.top1_agreement,
        checked.fidelity.sqnr_sim,
        checked.fidelity.sqnr_deployed,
        seconds,
    )


def size_table(files: list[Deployed]) -> Iterator[str]:
    """Yield the table of file sizes and of the time to open a file."""
    from eq_aimet.deploy.runtimes.onnxruntime import open_session

    yield from heading(
        "Size and opening",
        "Bytes of the INT8 files against the conventional model's FP32 file; opening in milliseconds of "
        f"processor time, the median of {OPENINGS} openings, alternating between the files.",
        (
            "network",
            "FP32",
            "plain",
            "orbits",
            "plain / FP32",
            "orbits / FP32",
            "open plain",
            "open orbits",
            "ratio",
        ),
    )
    reference = files[0].float_model.stat().st_size
    for entry in files:
        sizes = [path.stat().st_size for path in (entry.float_model, entry.plain, entry.orbits)]
        times = _in_turns(
            [lambda path=path: open_session(path) for path in (entry.plain, entry.orbits)],
            OPENINGS,
            time.process_time,
        )
        yield row(
            entry.name,
            *(f"{size / 1e6:.2f} MB" for size in sizes),
            *(f"{size / reference:.3f}×" for size in sizes[1:]),
            *(f"{seconds * 1e3:.0f} ms" for seconds in times),
            f"{times[1] / times[0]:.2f}×",
        )


def latency_table(files: list[Deployed]) -> Iterator[str]:
    """Yield the table of latencies; measure all networks and kinds of file in turns."""
    from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntimeFile, open_session

    yield from heading(
        "Latency",
        f"Milliseconds of processor time for one image on one thread, the median of {RUNS} runs, alternating "
        "between the files. *As exported* is AIMET's graph, *arranged* has rewritten operators.",
        ("network", "FP32", "INT8 as exported", "INT8 arranged", "INT8 / FP32", "INT8 / conventional INT8"),
    )
    image = _images(1).numpy()
    sessions = [
        open_session(path) for entry in files for path in (entry.float_model, entry.unarranged, entry.orbits)
    ]
    times = _in_turns(
        [lambda file=OnnxRuntimeFile(session): file.run([image]) for session in sessions],
        RUNS,
        time.process_time,
    )
    milliseconds = np.array(times).reshape(len(files), 3) * 1e3
    for entry, (in_float, unarranged, arranged) in zip(files, milliseconds, strict=True):
        yield row(
            entry.name,
            *(f"{value:.2f} ms" for value in (in_float, unarranged, arranged)),
            f"{arranged / in_float:.2f}×",
            f"{arranged / milliseconds[0, 2]:.2f}×",
        )


def exactness_table(files: list[Deployed]) -> Iterator[str]:
    """Yield the table of the results of `verify_onnx`."""
    yield from heading(
        "Exactness",
        f"{TEST_IMAGES} random images under three quarter turns, at one and at two threads. The "
        "conventional network is not invariant by itself.",
        (
            "network",
            "outputs changed",
            "top-1 as the sim",
            "SQNR sim",
            "SQNR deployed",
            "export and verification",
        ),
    )
    for entry in files:
        yield row(
            entry.name,
            f"{entry.changed} of {TEST_IMAGES * 6}",
            f"{entry.agreement:.1%}",
            f"{entry.sqnr_sim:.1f} dB",
            f"{entry.sqnr_deployed:.1f} dB",
            f"{entry.seconds:.0f} s",
        )


def _in_turns(actions: list[Callable[[], object]], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Return the median seconds of each action."""
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    for _ in range(rounds):
        for action, measured in zip(actions, times, strict=True):
            started = clock()
            action()
            measured.append(clock() - started)
    return [median(measured) for measured in times]


def _fitted(network: torch.nn.Module) -> torch.nn.Module:
    spread_statistics(network, torch.Generator().manual_seed(0), sigma=0.25)
    measure_statistics(network, _images(CALIBRATION_IMAGES))
    return copy.deepcopy(network).eval()


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(1))


if __name__ == "__main__":
    main()
