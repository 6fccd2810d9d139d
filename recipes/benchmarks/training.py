"""Measures training steps of the MobileNetV2s and prints the tables of docs/training_speed.md.

    $ python recipes/benchmarks/training.py                  # about 6 minutes on two idle cores
    $ python recipes/benchmarks/training.py --write          # also writes them into docs/training_speed.md
    $ python recipes/benchmarks/training.py --device cuda    # on a GPU; also measures the GPU's memory
    $ python recipes/benchmarks/training.py --compile        # also torch.compile: minutes per network

The script needs only eq_aimet. One process trains the networks of a table in turns, with Adam and batches of
32 random images. The script computes the ratios of the networks' times in each round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from pages import DOCS, heading, origin, publish, row
from training_steps import Setting, measure_memory, measure_profile, measure_times, network_names

PAGE = DOCS / "training_speed.md"
PACKAGES = ("eq_aimet", "e2cnn", "torch")
BATCH = 32
# Width, crop and rounds: first the recipe's default, then the paper's network.
SIZES = ((0.5, 47, 40), (1.0, 95, 12))
VARIANTS = ("eager", "channels-last", "bf16")
MEASUREMENTS = {
    "times": lambda setting: {
        variant: {name: asdict(times) for name, times in found.items()}
        for variant, found in measure_times(setting).items()
    },
    "memory": measure_memory,
    "profile": measure_profile,
}


def main() -> None:
    """Run all measurements and print the tables; write them into the page with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8], help="orders N of the groups C_N")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)  # for a child: name, setting, network
    arguments = parser.parse_args()
    if arguments.measure:
        what, setting, *name = arguments.measure
        print(json.dumps(MEASUREMENTS[what](Setting(**json.loads(setting)), *name)))
        return
    threads = arguments.threads if arguments.device == "cpu" else [1]
    settings = [
        Setting(width, crop, BATCH, count, rounds, tuple(arguments.groups), arguments.device)
        for width, crop, rounds in SIZES
        for count in threads
    ]
    publish(report(settings, arguments.compile), PAGE, write=arguments.write)


def measure(what: str, setting: Setting, *name: str) -> dict[str, Any]:
    """Return the result of one measurement; run it in a fresh process."""
    # JSON turns the tuples of a setting into lists; the child process accepts lists.
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--measure",
        what,
        json.dumps(asdict(setting)),
        *name,
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(setting.threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # a waiting thread frees its core for other threads
        "KINETO_LOG_LEVEL": "5",
    }
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def report(settings: list[Setting], with_compile: bool) -> Iterator[str]:
    """Yield the lines of the report, each right after its measurement."""
    where = "the CPU" if settings[0].device == "cpu" else "the GPU"
    yield origin(PACKAGES, f"{where}: ")
    yield from time_table(settings)
    yield from memory_table([setting for setting in settings if setting.threads == settings[0].threads])
    if settings[0].device == "cpu":
        yield from profile_table(settings[0])
    variants = (*VARIANTS, "compiled", "bf16+compiled") if with_compile else VARIANTS
    yield from variant_table(replace(settings[0], rounds=10, variants=variants))


def time_table(settings: list[Setting]) -> Iterator[str]:
    """Yield the table of the steps' times."""
    yield from heading(
        "Time of a step",
        "Forward, backward and optimizer, against `MobileNetV2(divisor=group)` of the same width and crop: "
        "median steps, the median of the rounds' ratios, and the ratio of the fastest steps. One thread: "
        "processor time; more: wall-clock time.",
        (
            "width, crop",
            "threads",
            "network",
            "depthwise",
            "conventional",
            "equivariant",
            "ratio",
            "of the fastest",
        ),
    )
    for setting in settings:
        found = measure("times", setting)["eager"]
        for name, conventional in _equivariant(setting):
            times = found[name]
            yield row(
                f"{setting.width:g}, {setting.crop}",
                str(setting.threads),
                *name.split(),
                f"{found[conventional]['median'] * 1e3:.0f} ms",
                f"{times['median'] * 1e3:.0f} ms",
                f"{times['median_ratio']:.2f}×",
                f"{times['fastest_ratio']:.2f}×",
            )


def memory_table(settings: list[Setting]) -> Iterator[str]:
    """Yield the table of the peak memory."""
    on_gpu = settings[0].device == "cuda"
    yield from heading(
        "Memory of a step",
        "The GPU's peak allocation."
        if on_gpu
        else "What training adds to the peak of the process' resident memory after the network is built.",
        ("width, crop", "network", "depthwise", "conventional", "equivariant", "ratio"),
    )
    for setting in settings:
        peaks = {
            name: measure("memory", setting, name)["cuda" if on_gpu else "resident"]
            for name in network_names(setting.groups)
        }
        for name, conventional in _equivariant(setting):
            yield row(
                f"{setting.width:g}, {setting.crop}",
                *name.split(),
                f"{peaks[conventional]:.0f} MiB",
                f"{peaks[name]:.0f} MiB",
                f"{peaks[name] / peaks[conventional]:.2f}×",
            )


def profile_table(setting: Setting) -> Iterator[str]:
    """Yield the table of the time that each kind of operation takes."""
    yield from heading(
        "Where the time goes",
        f"Milliseconds of a step by torch's profiler, width {setting.width:g}, crop {setting.crop}, one "
        "thread; the filters' expansion, part of the rest, measured by itself.",
        ("network", "depthwise", "convolution", "batch norm", "rest", "expansion", "of it forward"),
    )
    short = replace(setting, rounds=10)
    for name in network_names(setting.groups):
        found = measure("profile", short, name)
        columns = ("convolution", "batch norm", "rest", "expansion", "expansion forward")
        yield row(*name.split(), *(f"{found[column]:.1f}" for column in columns))


def variant_table(setting: Setting) -> Iterator[str]:
    """Yield the table of torch's ways to train faster."""
    yield from heading(
        "Memory format, bfloat16, compilation",
        f"Median milliseconds of a step, width {setting.width:g}, crop {setting.crop}, one thread.",
        ("network", "depthwise", *setting.variants),
    )
    found = measure("times", setting)
    for name in network_names(setting.groups):
        yield row(
            *name.split(), *(f"{found[variant][name]['median'] * 1e3:.0f}" for variant in setting.variants)
        )


def _equivariant(setting: Setting) -> list[tuple[str, str]]:
    """Return the name of each equivariant network and the name of its conventional counterpart."""
    names = network_names(setting.groups)
    return [(name, f"{name.split()[0]} conventional") for name in names if not name.endswith("conventional")]


if __name__ == "__main__":
    main()
