"""Trains MobileNetV2, conventional and rotation-equivariant, and prints the cost of INT8 for each network.

After Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for Limited-Resources Deep
Learning", arXiv 2004.09691. The images are small patches of stained tissue (PatchCamelyon). The two networks
match layer by layer. The recipe equalizes both, simulates them in INT8 with AIMET, and exports the ONNX files
that a device runs.

    $ pip install "eq_aimet[recipes]"
    $ python recipes/pcam_mnv2.py                     # synthetic tissue; about 5 minutes on 2 CPU cores
    $ python recipes/pcam_mnv2.py --data pcam --download     # PCam itself; fetches it if it is missing
    $ python recipes/pcam_mnv2.py --resume            # resumes after Ctrl-C, at the interrupted epoch
    $ python recipes/pcam_mnv2.py --data ~/pcam --width 1 --epochs 100 --batch-size 64 --device cuda

The results folder, `results/<the settings>/`, then holds

    table.md, table.json           the two tables that the recipe prints at the end
    report.html                    all results and pictures on one page, readable offline
    pictures/                      the pictures: training, tables, weight ranges, turned images, examples
    config.json                    the settings
    <model>/model.safetensors      the weights with the lowest validation loss, for a plain torch model
    <model>/*.ckpt                 Lightning's checkpoints of the best, the last and the last but one epoch
    <model>/model.onnx             the INT8 network for the device
    <model>/model.float.onnx       the equalized FP32 network; AIMET's model.encodings belongs to it
    <model>/verification.*         the check of the INT8 file in onnxruntime, as text and JSON
    equivariant/equalization.*     the equalized layers, the skipped layers and the reasons, as text and JSON
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import options
from options import Request, say
from rich import get_console
from rich.markup import escape

from eq_aimet.experiments import ResultsFolder, Settings
from eq_aimet.experiments.training import is_first_process, quiet_libraries

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments import NetworkFindings, TableRow
    from eq_aimet.experiments.training import EpochRecord, ImageDataModule

NOTES = (
    "90°, 45°: the worst relative change of the logits under such turns",
    "INT8: as deployed, with weights limited to [-64, 63], which saturate nowhere",
    "latency: the median for one image on one thread",
    "turned: whether turns by the group's multiples of 90° keep all bits of the logits",
)

console = get_console()  # the progress bar prints to the same console, so that their lines do not mix


def _how_to_go_on() -> str:
    arguments = [argument for argument in sys.argv if argument != "--resume"]
    return f"All finished epochs are kept; to go on:\n  {shlex.join(['python', *arguments, '--resume'])}"


@options.command(interrupted=_how_to_go_on)
def main(request: Request) -> None:
    """Train MobileNetV2, conventional and rotation-equivariant, and print the cost of INT8 for each."""
    (settings,) = request.prepare([request.settings])
    run(settings, request.results, workers=request.workers, resume=request.resume)


def run(settings: Settings, results: Path, *, workers: int = 0, resume: bool = False) -> list[TableRow]:
    """Run the experiment from the data to the report, and return the rows of the tables."""
    # The slow imports follow the checks of the settings and of the folder, so that the user sees a mistake
    # at once.
    folder = ResultsFolder.open(results / settings.run_name, settings.to_dict(), resume=resume)
    with console.status("loading Lightning and AIMET"), quiet_libraries():
        import aimet_torch.quantsim  # noqa: F401

        from eq_aimet.experiments import open_data, quantize_and_measure

    data = open_data(settings, workers=workers)
    say(f"[bold]data[/]     {escape(settings.data)}: {describe(data)}")
    say(f"[bold]results[/]  {escape(str(folder.path))}")

    models, histories, found = {}, {}, {}
    for name in settings.models:
        models[name], histories[name] = train(name, settings, data, folder.subfolder(name))
    if not is_first_process():  # one process per GPU; only the first one goes on
        return []

    # Export, equalize, simulate in INT8, deploy and measure each network.
    for name, model in models.items():
        found[name] = quantize_and_measure(
            name, model, settings, data, folder.subfolder(name), status=console.status
        )
        show(found[name].row)

    rows = [findings.row for findings in found.values()]
    title = f"{settings.title}, width {settings.width:g}, INT8 weights {settings.weights}"
    write_tables(folder, rows)
    with console.status("drawing"):
        page = write_page(folder, settings, data, histories, found, title=title)
    print_tables(rows, title=title)
    say(f"\n[bold]report[/]   {escape(str(page))}")
    return rows


def describe(data: ImageDataModule) -> str:
    """Return a text with the numbers of images."""
    return f"{len(data.train)} training, {len(data.valid)} validation and {len(data.test)} test images"


def write_page(
    folder: ResultsFolder,
    settings: Settings,
    data: ImageDataModule,
    histories: dict[str, tuple[EpochRecord, ...]],
    found: dict[str, NetworkFindings],
    *,
    title: str,
) -> Path:
    """Draw all pictures, write the report and return its path."""
    from eq_aimet.experiments import CLASS_NAMES, RunFindings, write_run_report

    shown = next(iter(found.values())).predictions
    findings = RunFindings(
        rows=[network.row for network in found.values()],
        histories=histories,
        ranges={name: network.ranges for name, network in found.items()},
        stabilities={name: network.stabilities for name, network in found.items()},
        predictions={name: network.predictions for name, network in found.items()},
        images=data.images("test", len(shown.labels)),
        class_names=CLASS_NAMES[settings.dataset],
        test_images=len(data.test),
    )
    return write_run_report(
        folder.path,
        findings,
        title=title,
        subtitle=describe(data),
        settings=settings.to_dict(),
        notes=NOTES,
    )


def write_tables(folder: ResultsFolder, rows: list[TableRow]) -> None:
    """Write the tables as Markdown, with their notes, and as JSON."""
    from eq_aimet.experiments import file_table, network_table

    files = file_table(rows, notes=NOTES)
    notes = "".join(f"- {note}\n" for note in files.notes)
    folder.write_text("table.md", "\n".join([network_table(rows).to_markdown(), files.to_markdown(), notes]))
    folder.write_json("table.json", [row.to_dict() for row in rows])


def print_tables(rows: list[TableRow], *, title: str) -> None:
    """Print the tables and their notes."""
    from eq_aimet.experiments import file_table, network_table

    console.print()
    console.print(network_table(rows, caption=title).to_terminal())
    files = file_table(rows, caption=f"The ONNX files in {rows[0].device.runtime}", notes=NOTES)
    console.print(files.to_terminal())
    for note in files.notes:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)


def train(
    name: str, settings: Settings, data: ImageDataModule, folder: ResultsFolder
) -> tuple[torch.nn.Module, tuple[EpochRecord, ...]]:
    """Return the model with the weights of the lowest validation loss, and the record of each epoch."""
    from eq_aimet.experiments import train_network

    def show_epoch(record: EpochRecord) -> None:
        say(
            f"  epoch {record.epoch:>{len(str(settings.epochs))}}/{settings.epochs}"
            f"   training {record.train_loss:.3f} {record.train_accuracy:6.1%}"
            f"   validation {record.valid_loss:.3f} {record.valid_accuracy:6.1%}"
        )

    say(f"\n[bold]{name}[/]  loss and accuracy:")
    model, history = train_network(
        name,
        settings,
        data,
        folder,
        on_epoch=show_epoch,
        on_notice=lambda notice: say(f"  [yellow]{escape(notice)}[/]"),
        progress=console.is_terminal,
    )
    best = min(history, key=lambda record: record.valid_loss)
    say(f"  the weights of epoch {best.epoch} are kept: validation loss {best.valid_loss:.3f}")
    return model, history


def show(row: TableRow) -> None:
    """Print the size and the accuracy of a network, before the recipe prints the tables."""
    sizes = (f"{size / 1e3:,.0f} KB" for size in (row.device.fp32_bytes, row.device.int8_bytes))
    say(f"\n[bold]{row.model}[/]  {row.parameters:,} parameters")
    say(f"  test accuracy  FP32 {row.fp32_accuracy:.1%}  INT8 {row.int8_accuracy:.1%}")
    say("  ONNX file      FP32 {}  INT8 {}".format(*sizes))


if __name__ == "__main__":
    options.start(main)
