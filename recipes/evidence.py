"""Trains, quantizes and measures the networks of docs/results.md, on real tissue and on rotated MNIST.

    $ python recipes/evidence.py --data DATA            # resumes after an interruption
    $ python recipes/evidence.py --data DATA --write    # also writes the tables into docs/results.md

DATA holds `nuclei_in_pcam_layout/`, patches of stained tissue in PCam's layout, and `mnist.npz`, MNIST as one
numpy archive. The recipe trains and measures each network once, and keeps weights and figures under
`results/evidence/`. `--only tissue` and `--only digits` run one part each, so that two processes can share
the work. On two cores, both parts take some hours. On a GPU, add `--device cuda --width 1`.

With fewer training images, the recipe trains more epochs, up to 48. The networks of one data set therefore
see the same number of images in training. A network that reaches the limit of 48 epochs sees fewer images.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import options
import typer
from benchmarks.pages import put_between_marks, row
from evidence_figures import Figures, measured
from options import clear_errors

from eq_aimet.arguments import check_choice, check_integer
from eq_aimet.experiments import Settings, count_images
from eq_aimet.experiments.tables import markdown_heading
from eq_aimet.experiments.training import quiet_libraries

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
CONVENTIONAL = {"model": "conventional"}
FIELD_WISE = {"model": "equivariant", "depthwise": "field"}
CHANNEL_WISE = {"model": "equivariant", "depthwise": "channel"}
# The MobileNetV2s have the same numbers of channels. The two DenseNets have about the same number of weights.
DENSE = {"architecture": "densenet", "model": "conventional", "group": 1}
DENSE_P4M = {"architecture": "densenet", "model": "equivariant", "group": 4, "reflections": True}
FRACTIONS = (1.0, 0.25, 0.1)
MOST_EPOCHS = 48

TISSUE = Settings(
    1, 1, 1, data="nuclei_in_pcam_layout", crop=47, width=0.5, epochs=24, learning_rate=1e-2, turns="any"
)
DIGITS = replace(TISSUE, data="mnist.npz", dataset="rotated-mnist", crop=33, epochs=8, batch_size=64)
TEST_IMAGES = {"tissue": None, "digits": 5000}
PUBLISHED = "98.24 %"  # 31 epochs, filters of 5×5 and 7×7 pixels, also on rotated digits


def main(
    data: Annotated[Path, typer.Option(help="Folder of `nuclei_in_pcam_layout/` and `mnist.npz`.")],
    only: Annotated[str, typer.Option(help="The data: tissue, digits or all.")] = "all",
    seeds: Annotated[int, typer.Option(help="How many trainings of each network.")] = 3,
    width: options.Width = TISSUE.width,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs over all images; by default what two cores do in some hours.")
    ] = None,
    device: options.Device = TISSUE.device,
    results: options.Results = Path("results/evidence"),
    write: Annotated[bool, typer.Option("--write", help=f"Put the tables into docs/{PAGE.name}.")] = False,
) -> None:
    """Train, quantize and measure the networks of docs/results.md."""
    with clear_errors(lambda: "All finished epochs are kept; the same command goes on."):
        studies = {"tissue": TISSUE, "digits": DIGITS}
        check_choice("only", only, (*studies, "all"), remedy="Leave it out for all.")
        check_integer("seeds", seeds, remedy="Take 3, so that the tables have a spread.")
        tables: list[str] = []
        for name, settings in studies.items():
            if only in (name, "all"):
                whole = replace(
                    settings,
                    data=str((data / settings.data).expanduser().resolve()),
                    width=width,
                    device=device,
                    epochs=settings.epochs if epochs is None else epochs,
                )
                whole = count_images(whole, (None, None, TEST_IMAGES[name]))
                tables += study(name, whole, range(seeds), results)
        text = "\n".join(tables)
        typer.echo(text)
        if write:
            command = " ".join(["python recipes/evidence.py", *_shown(sys.argv[1:])])
            put_between_marks(f"`{command}`\n\n{text}", PAGE)


def study(name: str, whole: Settings, seeds: Sequence[int], results: Path) -> Iterator[str]:
    """Yield the lines of a data set's tables: accuracy with less data, and for tissue each step's effect."""
    found: dict[tuple[str, float], list[Figures]] = {}
    sizes: dict[str, int] = {}
    for fraction in FRACTIONS:
        networks = [CONVENTIONAL, FIELD_WISE]
        if fraction == 1:
            networks += [CHANNEL_WISE, DENSE, DENSE_P4M] if name == "tissue" else [CHANNEL_WISE]
        for network in networks:
            runs = [with_fraction(replace(whole, **network, seed=seed), fraction) for seed in seeds]
            found[runs[0].title, fraction] = [measured(run, results, "accuracies") for run in runs]
            sizes[runs[0].title] = count_weights(runs[0])
    yield from accuracy_table(name, whole, found, sizes)
    if name == "tissue":
        for network in (FIELD_WISE, CHANNEL_WISE):
            for weights in ("per-tensor", "per-channel"):
                runs = [replace(whole, **network, weights=weights, seed=seed) for seed in seeds]
                yield from steps_table(runs[0], [measured(run, results, "steps") for run in runs])


def with_fraction(whole: Settings, fraction: float) -> Settings:
    """Return the settings of a run with a part of the training images and with more epochs."""
    count = round(fraction * whole.train_images)
    return replace(
        whole,
        train_images=count,
        epochs=max(whole.epochs, min(round(whole.epochs / fraction), MOST_EPOCHS)),
        calibration_images=min(whole.calibration_images, count),
    )


def count_weights(settings: Settings) -> int:
    """Return the number of parameters that the run's network learns."""
    with quiet_libraries():
        from eq_aimet.experiments import build_network, count_parameters

        return count_parameters(build_network(settings.model, settings))


def accuracy_table(
    name: str,
    whole: Settings,
    found: dict[tuple[str, float], list[Figures]],
    sizes: dict[str, int],
) -> Iterator[str]:
    """Yield the table of accuracies by the share of training images."""
    title = {"tissue": "Real tissue", "digits": "Rotated MNIST"}[name]
    seeds = len(next(iter(found.values())))
    yield f"### {title}: accuracy with less data\n"
    yield (
        f"Width {whole.width:g}, {whole.crop}×{whole.crop} "
        f"pixels, {whole.epochs} epochs of all training images (of fewer images more, up to {MOST_EPOCHS}), "
        f"{whole.test_images:,} test images, {seeds} seeds: mean ± standard deviation.\n"
    )
    changes = ("90°: changed, INT8", "45°: changed, INT8")
    yield from markdown_heading(("network", "weights", "training images", "FP32", "INT8", *changes))
    for (network, fraction), runs in found.items():
        yield row(
            network,
            f"{sizes[network]:,}",
            f"{round(fraction * whole.train_images):,} ({fraction:.0%})",
            _percent([run["FP32"]["accuracy"] for run in runs]),
            _percent([run["INT8"]["accuracy"] for run in runs]),
            _percent([run["INT8"]["changed_90"] for run in runs]),
            _percent([run["INT8"]["changed_45"] for run in runs]),
        )
    if name == "digits":
        yield row("e2cnn's example network, as published", "", "12,000", PUBLISHED, "", "", "")
    yield ""


def steps_table(settings: Settings, runs: list[Figures]) -> Iterator[str]:
    """Yield the table of the accuracy, SQNR and rotation errors after each step."""
    yield f"### Real tissue: each step, {settings.title}, INT8 weights {settings.weights}\n"
    yield f"All training images, {len(runs)} seeds: mean ± standard deviation.\n"
    yield from markdown_heading(
        ("step", "accuracy", "SQNR", "90° error", "45° error", "90°: changed", "45°: changed")
    )
    for step in runs[0]:
        values = {name: [run[step][name] for run in runs] for name in runs[0][step]}
        yield row(
            step,
            _percent(values["accuracy"]),
            "" if step == "FP32" else _spread(values["sqnr"], ".1f", " dB"),
            _spread(values["error_90"], ".0e") if max(values["error_90"]) else "0",
            _spread(values["error_45"], ".2f"),
            _percent(values["changed_90"]),
            _percent(values["changed_45"]),
        )
    yield ""


def _shown(arguments: list[str]) -> list[str]:
    """Return the command line without the machine's paths."""
    shown = list(arguments)
    for option, name in (("--data", "DATA"), ("--results", "RESULTS")):
        if option in shown:
            shown[shown.index(option) + 1] = name
    return shown


def _percent(values: Sequence[float]) -> str:
    return _spread([100 * value for value in values], ".1f", " %")


def _spread(values: Sequence[float], form: str, unit: str = "") -> str:
    numbers = [value for value in values if value is not None]
    spread = f" ± {stdev(numbers):{form}}" if len(numbers) > 1 else ""
    return f"{mean(numbers):{form}}{spread}{unit}"


if __name__ == "__main__":
    options.start(main)
