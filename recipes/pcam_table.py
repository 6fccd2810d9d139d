"""Trains and quantizes all networks of the paper's table, one after the other, and prints the table.

Conventional MobileNetV2, and equivariant with C4 and C8 and both kinds of depthwise layers; DenseNet, P4, P4M
(Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", 2018, arXiv 1806.03962), after table 1 of
arXiv 2004.09691.

    $ python recipes/pcam_table.py --data ~/pcam --download --width 1 --crop 95 --epochs 100 --device cuda

Run it again after an interruption: it goes on in the epoch in progress, and what is finished with the same
settings is read, not trained again. Each network has a folder of its own under `results/`, as
`recipes/pcam_mnv2.py` makes it; the table of them all is `results/table-<the settings>/`, with a report.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import options
import typer
from options import say
from pcam_mnv2 import NOTES, print_tables, run, write_tables
from rich.markup import escape

from eq_aimet.errors import EqAimetError
from eq_aimet.experiments import ResultsFolder, Settings, TableRow

NETWORKS = (
    {"architecture": "mobilenet", "model": "conventional", "group": 8},
    {"architecture": "mobilenet", "model": "equivariant", "group": 4, "depthwise": "channel"},
    {"architecture": "mobilenet", "model": "equivariant", "group": 8, "depthwise": "channel"},
    {"architecture": "mobilenet", "model": "equivariant", "group": 4, "depthwise": "field"},
    {"architecture": "mobilenet", "model": "equivariant", "group": 8, "depthwise": "field"},
    {"architecture": "densenet", "model": "conventional", "group": 1},
    {"architecture": "densenet", "model": "equivariant", "group": 4, "reflections": False},
    {"architecture": "densenet", "model": "equivariant", "group": 4, "reflections": True},
)


def main(
    data: options.Data = None,
    download: options.Download = False,
    train_images: options.TrainImages = None,
    valid_images: options.ValidImages = None,
    test_images: options.TestImages = None,
    crop: options.Crop = Settings.crop,
    width: options.Width = Settings.width,
    epochs: options.Epochs = Settings.epochs,
    turns: options.Turns = Settings.turns,
    batch_size: options.BatchSize = Settings.batch_size,
    learning_rate: options.LearningRate = Settings.learning_rate,
    seed: options.Seed = Settings.seed,
    device: options.Device = Settings.device,
    devices: options.Devices = Settings.devices,
    nodes: options.Nodes = Settings.nodes,
    compile: options.Compile = Settings.compile,
    precision: options.Precision = Settings.precision,
    workers: options.Workers = 0,
    weights: options.Weights = Settings.weights,
    calibration_images: options.CalibrationImages = Settings.calibration_images,
    results: options.Results = Path("results"),
) -> None:
    """Train and quantize all networks of the paper's table, and print it."""
    try:
        limits = (train_images, valid_images, test_images)
        shared = options.read_settings(
            data,
            limits,
            crop=crop,
            width=width,
            epochs=epochs,
            turns=turns,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            device=device,
            devices=devices,
            nodes=nodes,
            compile=compile,
            precision=precision,
            weights=weights,
            calibration_images=calibration_images,
        )
        runs = [replace(shared, **network) for network in NETWORKS]
        runs = options.prepare(runs, data, limits, workers=workers, download=download)
        make_table(runs, results, workers=workers)
    except EqAimetError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. All finished epochs are kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None


def make_table(runs: list[Settings], results: Path, *, workers: int) -> None:
    """Do each run that is not finished, and writes and prints the table of all."""
    rows = []
    for settings in runs:
        finished = results / settings.run_name / "table.json"
        if finished.exists():
            ResultsFolder.open(finished.parent, settings.to_dict(), resume=True)  # of this configuration
            (row,) = (TableRow.from_dict(values) for values in json.loads(finished.read_text()))
            say(f"[bold]{escape(settings.title)}[/]  is finished: {escape(str(finished.parent))}")
        else:
            say(f"\n[bold]{escape(settings.title)}[/]")
            found = run(settings, results, workers=workers, resume=True)
            if not found:  # not the first of several processes
                continue
            (row,) = found
        rows.append(replace(row, model=settings.title))
    if not rows:
        return

    from eq_aimet.experiments import RunFindings, write_run_report

    names = [settings.run_name.split("_") for settings in runs]
    shared = "_".join(part for part in names[0] if all(part in name for name in names))
    folder = ResultsFolder.open(
        results / f"table-{shared}", {"runs": [settings.run_name for settings in runs]}, resume=True
    )
    write_tables(folder, rows)
    title = f"The paper's networks, width {runs[0].width:g}"
    page = write_run_report(
        folder.path, RunFindings(rows=rows, test_images=runs[0].test_images), title=title, notes=NOTES
    )
    print_tables(rows, title=title)
    say(f"\n[bold]report[/]   {escape(str(page))}")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
