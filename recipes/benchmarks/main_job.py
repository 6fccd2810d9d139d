"""Measures eq_aimet against plain AIMET and plain e2cnn, and prints the tables of docs/benchmarks.md.

    $ python recipes/benchmarks/main_job.py             # about 10 minutes on one idle core
    $ python recipes/benchmarks/main_job.py --write     # also writes them into docs/benchmarks.md
    $ python recipes/benchmarks/main_job.py --groups 4  # C4 only

The script needs only eq_aimet. The measurements run one after the other, each in its own process on one
thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

from pages import DOCS, heading, origin, publish, row

PAGE = DOCS / "benchmarks.md"
PACKAGES = ("eq_aimet", "aimet-torch", "e2cnn", "torch", "numpy")
DEPTHWISE = ("channel", "field")
QUANTIZED = (("field", "strong"), ("field", "mild"), ("field", "measured"), ("channel", "measured"))


def main() -> None:
    """Run all measurements and print the tables; write them into the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8], help="orders N of the groups C_N")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # for a child: name, group, kind
    arguments = parser.parse_args()
    if arguments.measure:
        name, group, depthwise = arguments.measure
        run_here(name, int(group), depthwise)
        return
    publish(report(arguments.groups), PAGE, write=arguments.write)


def run_here(name: str, group: int, depthwise: str) -> None:
    """Run one measurement in this process and print its result as JSON on the last line."""
    import torch
    from measurements import MEASUREMENTS

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    print(json.dumps(MEASUREMENTS[name](group, depthwise)))


def measure(name: str, group: int, depthwise: str) -> dict[str, float]:
    """Return the result of one measurement; run it in a fresh process."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", name, str(group), depthwise]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(groups: list[int]) -> Iterator[str]:
    """Yield the lines of the report, each right after its measurement."""
    yield origin(PACKAGES)
    yield from equalization_table(groups)
    yield from construction_table(groups)
    yield from quantization_table(groups)


def equalization_table(groups: list[int]) -> Iterator[str]:
    """Yield the table of the equalization's time and memory."""
    yield from heading(
        "Equalization",
        "`equalize_equivariant` against AIMET's `equalize_model`, medians of five alternating runs each, "
        "on copies of one exported model. AIMET by itself scales no field-wise depthwise layer and so "
        "has less to do there.",
        ("network", "depthwise", "AIMET", "eq_aimet", "ratio", "peak AIMET", "peak eq_aimet"),
    )
    for group in groups:
        for kind in DEPTHWISE:
            seconds = measure("equalize", group, kind)
            peaks = [
                measure(f"equalization_memory_of_{name}", group, kind)["peak_mib"]
                for name in ("aimet", "eq_aimet")
            ]
            yield row(
                f"C{group}",
                kind,
                f"{seconds['aimet']:.2f} s",
                f"{seconds['eq_aimet']:.2f} s",
                f"{seconds['eq_aimet'] / seconds['aimet']:.2f}×",
                *(f"{peak:.0f} MiB" for peak in peaks),
            )


def construction_table(groups: list[int]) -> Iterator[str]:
    """Yield the table of the time and memory to build and to export a network."""
    yield from heading(
        "Building and exporting",
        "eq_aimet.models and `export_model` against the same layers of `enn.R2Conv` and "
        "`enn.InnerBatchNorm` and their `.export()` one by one, which gives single layers without a "
        "network around them and without blocks. e2cnn has no channel-wise depthwise layer.",
        ("network", "depthwise", "by", "build", "export", "peak"),
    )
    for group in groups:
        for by, kind in (("e2cnn", "field"), ("eq_aimet", "field"), ("eq_aimet", "channel")):
            found = measure(f"construct_with_{by}", group, kind)
            seconds = (f"{found['build']:.2f} s", f"{found['export']:.2f} s")
            yield row(f"C{group}", kind, by, *seconds, f"{found['peak_mib']:.0f} MiB")


def quantization_table(groups: list[int]) -> Iterator[str]:
    """Yield the table of the SQNR of INT8 logits."""
    yield from heading(
        "INT8 after equalization",
        "SQNR in dB of the simulated INT8 logits, 10 log10(Σ fp32² / Σ (fp32 − int8)²), per-tensor "
        "weights, random weights and images, mean over three seeds. The reference is the FP32 model "
        "that is quantized; in brackets the one before equalization, which also counts what the "
        "high-bias fold changed. The batch norms differ from field to field. *strong*: γ and the running "
        "variances are log-normal with σ = 1, β and the means normal, all random. *mild*: the same "
        "with half the σ. *measured*: γ and β as in *mild*, the running statistics measured on "
        "random images, so that they fit the network as they do after training.",
        ("network", "depthwise", "statistics", "fold only", "AIMET", "eq_aimet", "eq_aimet − AIMET"),
    )
    for group in groups:
        for kind, statistics in QUANTIZED:
            found = measure(f"quantize_{statistics}", group, kind)
            cells = [
                f"{found[name]:.1f} ({found[f'{name} from start']:.1f})"
                for name in ("fold", "aimet", "eq_aimet")
            ]
            yield row(f"C{group}", kind, statistics, *cells, f"{found['eq_aimet'] - found['aimet']:+.1f}")


if __name__ == "__main__":
    main()
