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
from typing import Annotated

import typer
from pcam_mnv2 import DEFAULT_IMAGES, NOTES, fetch, print_tables, run, say, write_tables
from rich.markup import escape

from eq_aimet.errors import EqAimetError
from eq_aimet.experiments import check_network, count_images
from eq_aimet.training import ResultsFolder, Settings, TableRow

DEFAULT = Settings(*DEFAULT_IMAGES)

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
    data: Annotated[
        Path | None, typer.Option(help="Folder of PCam's HDF5 files. Left out, synthetic tissue is used.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch PCam, 8 GB, into the folder of --data first.")
    ] = False,
    train_images: Annotated[int | None, typer.Option(help="Training images; left out, all.")] = None,
    valid_images: Annotated[int | None, typer.Option(help="Validation images; left out, all.")] = None,
    test_images: Annotated[int | None, typer.Option(help="Test images; left out, all.")] = None,
    crop: Annotated[int, typer.Option(help="Side of the images about their centre, odd.")] = DEFAULT.crop,
    width: Annotated[float, typer.Option(help="Multiplier of the channel numbers.")] = DEFAULT.width,
    epochs: Annotated[int, typer.Option(help="How often each training image is seen.")] = DEFAULT.epochs,
    turns: Annotated[str, typer.Option(help="Random turns of training images: quarter or any.")] = (
        DEFAULT.turns
    ),
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = DEFAULT.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate of the one-cycle schedule.")
    ] = DEFAULT.learning_rate,
    weights: Annotated[
        str, typer.Option(help="Ranges of the INT8 weights: per-tensor or per-channel.")
    ] = DEFAULT.weights,
    calibration_images: Annotated[
        int, typer.Option(help="Training images from which the activations' ranges are taken.")
    ] = DEFAULT.calibration_images,
    seed: Annotated[int, typer.Option(help="Of initial weights, order and augmentation.")] = DEFAULT.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = DEFAULT.device,
    devices: Annotated[int, typer.Option(help="GPUs of each machine that train together.")] = 1,
    nodes: Annotated[int, typer.Option(help="Machines that train together.")] = 1,
    precision: Annotated[str, typer.Option(help="32, bf16 or 16.")] = DEFAULT.precision,
    workers: Annotated[int, typer.Option(help="Processes that read images.")] = 0,
    results: Annotated[Path, typer.Option(help="Folder under which the runs' folders are made.")] = Path(
        "results"
    ),
) -> None:
    """Train and quantize all networks of the paper's table, and print it."""
    try:
        given = (train_images, valid_images, test_images)
        images = [
            default if count is None else count for count, default in zip(given, DEFAULT_IMAGES, strict=True)
        ]
        shared = Settings(
            *images,
            data="synthetic" if data is None else str(data.expanduser().resolve()),
            crop=crop,
            width=width,
            epochs=epochs,
            turns=turns,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weights=weights,
            calibration_images=calibration_images,
            seed=seed,
            device=device,
            devices=devices,
            nodes=nodes,
            precision=precision,
        )
        runs = [replace(shared, **network) for network in NETWORKS]
        for settings in runs:
            check_network(settings)
        if download:
            fetch(data)
        if data is not None:
            runs = [count_images(settings, given) for settings in runs]
        make_table(runs, results, workers=workers)
    except EqAimetError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. All finished epochs are kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None


def make_table(runs: list[Settings], results: Path, *, workers: int) -> None:
    """Does each run that is not finished, and writes and prints the table of all."""
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

    from eq_aimet.pictures import RunFindings, write_run_report

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
