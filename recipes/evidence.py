"""Trains, quantizes and measures what docs/results.md shows, on real tissue and on rotated MNIST.

    $ python recipes/evidence.py --data DATA            # goes on where it was interrupted
    $ python recipes/evidence.py --data DATA --write    # and puts the tables into docs/results.md

DATA holds `nuclei_in_pcam_layout/`, patches of stained tissue in PCam's layout, and `mnist.npz`, MNIST as one
numpy archive. Each network is trained once and kept under `results/evidence/`, and so is what was measured of
it; `--only tissue` or `--only digits` does a part, so that two processes can share the work. On two cores all
of it takes some hours. On a GPU add `--device cuda --width 1`.

The fewer images, the more epochs, up to 48: so networks of one data set see the same number of images in
training, unless their images are very few.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated

import options
import typer
from rich import get_console

from eq_aimet.errors import EqAimetError, InvalidArgumentError
from eq_aimet.experiments import ResultsFolder, Settings, count_images
from eq_aimet.experiments.training import quiet_libraries

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.training import ImageDataModule

Figures = dict[str, dict[str, float]]  # what was measured, by the network's precision or the step

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
CONVENTIONAL = {"model": "conventional"}
FIELD_WISE = {"model": "equivariant", "depthwise": "field"}
CHANNEL_WISE = {"model": "equivariant", "depthwise": "channel"}
# The MobileNetV2s have the same numbers of channels, these two about the same number of weights.
DENSE = {"architecture": "densenet", "model": "conventional", "group": 1}
DENSE_P4M = {"architecture": "densenet", "model": "equivariant", "group": 4, "reflections": True}
FRACTIONS = (1.0, 0.25, 0.1)
MOST_EPOCHS = 48
STABILITY_IMAGES = 128

TISSUE = Settings(
    1, 1, 1, data="nuclei_in_pcam_layout", crop=47, width=0.5, epochs=24, learning_rate=1e-2, turns="any"
)
DIGITS = replace(TISSUE, data="mnist.npz", dataset="rotated-mnist", crop=33, epochs=8, batch_size=64)
TEST_IMAGES = {"tissue": None, "digits": 5000}
PUBLISHED = "98.24 %"  # after 31 epochs, of filters of 5×5 and 7×7 pixels, on digits turned likewise

# What each step costs and gives: the method of equalization, whether blocks are tied, and the standard
# deviations of data-free calibration.
STEPS: dict[str, tuple[str, bool, float | None]] = {
    "AIMET: batch norms folded": ("fold", False, None),
    "AIMET: and cross-layer equalization": ("aimet-cle", False, None),
    "AIMET: and high-bias fold": ("aimet", False, None),
    "eq_aimet: batch norms folded, blocks tied": ("fold", True, None),
    "eq_aimet: and cross-layer equalization": ("cle", True, None),
    "eq_aimet: and high-bias fold (unpadded)": ("eq_aimet", True, None),
    "eq_aimet: and high-bias fold (all)": ("eq_aimet-all", True, None),
    "eq_aimet: calibrated without data, β ± 4σ": ("eq_aimet", True, 4.0),
    "eq_aimet: calibrated without data, β ± 7σ": ("eq_aimet", True, 7.0),
}

console = get_console()


def main(
    data: Annotated[Path, typer.Option(help="Folder of `nuclei_in_pcam_layout/` and `mnist.npz`.")],
    only: Annotated[str, typer.Option(help="tissue, digits or all.")] = "all",
    seeds: Annotated[int, typer.Option(help="How many trainings of each network.")] = 3,
    width: options.Width = TISSUE.width,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs over all images; left out, what two cores do in some hours.")
    ] = None,
    device: options.Device = TISSUE.device,
    results: options.Results = Path("results/evidence"),
    write: Annotated[bool, typer.Option("--write", help=f"Put the tables into docs/{PAGE.name}.")] = False,
) -> None:
    """Train, quantize and measure what docs/results.md shows."""
    try:
        studies = {"tissue": TISSUE, "digits": DIGITS}
        if only not in (*studies, "all"):
            raise InvalidArgumentError(
                "--only",
                received=repr(only),
                expected="tissue, digits or all",
                remedy="Leave it out for all.",
            )
        if seeds < 1:
            raise InvalidArgumentError(
                "--seeds",
                received=seeds,
                expected="an integer of at least 1",
                remedy="Take 3, so that the tables have a spread.",
            )
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
            put_into_page(text)
    except EqAimetError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


def study(name: str, whole: Settings, seeds: Sequence[int], results: Path) -> Iterator[str]:
    """Yields the lines of a data set's tables: less data, and on tissue what each step gives."""
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
    """Returns the settings of a run with a part of the training images, each seen the more often."""
    count = round(fraction * whole.train_images)
    return replace(
        whole,
        train_images=count,
        epochs=max(whole.epochs, min(round(whole.epochs / fraction), MOST_EPOCHS)),
        calibration_images=min(whole.calibration_images, count),
    )


def count_weights(settings: Settings) -> int:
    """Returns how many numbers the run's network learns."""
    with quiet_libraries():
        from eq_aimet.experiments import build_network, count_parameters

        return count_parameters(build_network(settings.model, settings))


def measured(settings: Settings, results: Path, kind: str) -> Figures:
    """Returns what was measured of a run's network, which is trained and measured only if it wasn't yet."""
    trained = replace(settings, weights=Settings.weights)  # they don't matter to the training
    folder = ResultsFolder.open(results / trained.run_name, trained.to_dict(), resume=True)
    file = folder.path / f"{kind}-{settings.weights}.json"
    if not file.exists():
        with quiet_libraries():
            from eq_aimet.experiments import open_data, train_network

            data = open_data(settings)
            console.log(f"{settings.run_name}")
            model, _ = train_network(settings.model, settings, data, folder)
            measure = measure_accuracies if kind == "accuracies" else measure_steps
            folder.write_json(file.name, measure(model, settings, data))
            console.log(f"{kind}: {file.read_text()}")
    content: Figures = json.loads(file.read_text())
    return content


def measure_accuracies(model: torch.nn.Module, settings: Settings, data: ImageDataModule) -> Figures:
    """Returns the accuracy in FP32, and in INT8 after equalization."""
    from eq_aimet import export_model
    from eq_aimet.experiments import equalize, simulate

    images = data.images("train", settings.calibration_images).to(settings.device)
    plain = export_model(model, dummy_input=images[:1])
    in_float = figures(plain, plain, settings, data)
    is_equivariant = settings.model == "equivariant"
    equalize(plain, images[:1], "eq_aimet" if is_equivariant else "aimet")
    sim = simulate(plain, images, weights=settings.weights, tied=is_equivariant)
    return {"FP32": in_float, "INT8": figures(sim.model, plain, settings, data)}


def measure_steps(model: torch.nn.Module, settings: Settings, data: ImageDataModule) -> Figures:
    """Returns the figures of the FP32 network and of its INT8 simulation after each of the `STEPS`."""
    from eq_aimet import export_model
    from eq_aimet.experiments import equalize, simulate

    images = data.images("train", settings.calibration_images).to(settings.device)
    reference = export_model(model, dummy_input=images[:1])
    found = {"FP32": figures(reference, reference, settings, data)}
    for step, (method, tied, deviations) in STEPS.items():
        plain = export_model(model, dummy_input=images[:1])
        equalize(plain, images[:1], method)
        sim = simulate(
            plain,
            images,
            weights=settings.weights,
            tied=tied,
            portable=False,
            standard_deviations=deviations,
        )
        found[step] = figures(sim.model, reference, settings, data)
    return found


def figures(
    model: torch.nn.Module, reference: torch.nn.Module, settings: Settings, data: ImageDataModule
) -> dict[str, float]:
    """Returns accuracy, SQNR in dB against the reference, rotation errors and changed predictions."""
    import torch

    from eq_aimet import equivariance_error
    from eq_aimet.deploy.measuring import signal_to_noise
    from eq_aimet.experiments.pictures import measure_stability
    from eq_aimet.experiments.training import measure_accuracy

    images = data.images("test", STABILITY_IMAGES).to(settings.device)
    loader = data.test_dataloader()
    found = {
        "accuracy": measure_accuracy(model, loader, classes=data.classes, device=settings.device),
        "error_90": equivariance_error(model, images[:16], elements=[90, 180, 270]).worst,
        "error_45": equivariance_error(model, images[:16], elements=[45]).worst,
    }
    with torch.no_grad():
        logits, expected = (network(images).cpu().double().numpy() for network in (model, reference))
    found["sqnr"] = float(signal_to_noise(logits, expected)) if model is not reference else float("inf")
    stability = measure_stability(model, images, step=45, dtype=torch.float32)
    changed = dict(zip(stability.angles, stability.agreement, strict=True))
    found["changed_90"] = 1 - mean(changed[angle] for angle in (90.0, 180.0, 270.0))
    found["changed_45"] = 1 - mean(changed[angle] for angle in (45.0, 135.0, 225.0, 315.0))
    return found


def accuracy_table(
    name: str,
    whole: Settings,
    found: dict[tuple[str, float], list[Figures]],
    sizes: dict[str, int],
) -> Iterator[str]:
    """Yields the table of accuracies by the share of training images."""
    title = {"tissue": "Real tissue", "digits": "Rotated MNIST"}[name]
    seeds = len(next(iter(found.values())))
    yield f"### {title}: accuracy with less data\n"
    yield (
        f"Width {whole.width:g}, {whole.crop}×{whole.crop} "
        f"pixels, {whole.epochs} epochs of all training images (of fewer images more, up to {MOST_EPOCHS}), "
        f"{whole.test_images:,} test images, {seeds} seeds: mean ± standard deviation.\n"
    )
    changes = ("90°: changed, INT8", "45°: changed, INT8")
    yield from _heading(("network", "weights", "training images", "FP32", "INT8", *changes))
    for (network, fraction), runs in found.items():
        yield _row(
            network,
            f"{sizes[network]:,}",
            f"{round(fraction * whole.train_images):,} ({fraction:.0%})",
            _percent([run["FP32"]["accuracy"] for run in runs]),
            _percent([run["INT8"]["accuracy"] for run in runs]),
            _percent([run["INT8"]["changed_90"] for run in runs]),
            _percent([run["INT8"]["changed_45"] for run in runs]),
        )
    if name == "digits":
        yield _row("e2cnn's example network, as published", "", "12,000", PUBLISHED, "", "", "")
    yield ""


def steps_table(settings: Settings, runs: list[Figures]) -> Iterator[str]:
    """Yields the table of what each step costs and gives."""
    yield f"### Real tissue: each step, {settings.title}, INT8 weights {settings.weights}\n"
    yield f"All training images, {len(runs)} seeds: mean ± standard deviation.\n"
    yield from _heading(
        ("step", "accuracy", "SQNR", "90° error", "45° error", "90°: changed", "45°: changed")
    )
    for step in runs[0]:
        values = {name: [run[step][name] for run in runs] for name in runs[0][step]}
        yield _row(
            step,
            _percent(values["accuracy"]),
            "" if step == "FP32" else _spread(values["sqnr"], ".1f", " dB"),
            _spread(values["error_90"], ".0e") if max(values["error_90"]) else "0",
            _spread(values["error_45"], ".2f"),
            _percent(values["changed_90"]),
            _percent(values["changed_45"]),
        )
    yield ""


def put_into_page(text: str) -> None:
    """Replaces what stands between the page's two marks."""
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    page = PAGE.read_text()
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    command = " ".join(["python recipes/evidence.py", *_shown(sys.argv[1:])])
    PAGE.write_text(f"{before}{begin}\n\n`{command}`\n\n{text}\n{end}{after}")


def _shown(arguments: list[str]) -> list[str]:
    """The command line without the machine's paths."""
    shown = list(arguments)
    for option, name in (("--data", "DATA"), ("--results", "RESULTS")):
        if option in shown:
            shown[shown.index(option) + 1] = name
    return shown


def _heading(names: Sequence[str]) -> Iterator[str]:
    yield _row(*names)
    yield _row("---", *("---:" for _ in names[1:]))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(values: Sequence[float]) -> str:
    return _spread([100 * value for value in values], ".1f", " %")


def _spread(values: Sequence[float], form: str, unit: str = "") -> str:
    numbers = [value for value in values if value is not None]
    spread = f" ± {stdev(numbers):{form}}" if len(numbers) > 1 else ""
    return f"{mean(numbers):{form}}{spread}{unit}"


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
