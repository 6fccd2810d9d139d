"""Trains MobileNetV2, conventional and rotation-equivariant, and prints what INT8 costs each of them.

After Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for Limited-Resources Deep
Learning", arXiv 2004.09691: small images of stained tissue (PatchCamelyon), the two networks layer by layer
alike, both equalized and simulated in INT8 by AIMET, and exported as the ONNX files that a device runs.

    $ pip install "eq_aimet[recipes]"
    $ python recipes/pcam_mnv2.py                     # synthetic tissue; about 5 minutes on 2 CPU cores
    $ python recipes/pcam_mnv2.py --data pcam --download     # PCam itself, fetched if it is missing
    $ python recipes/pcam_mnv2.py --resume            # goes on after Ctrl-C, at the epoch in progress
    $ python recipes/pcam_mnv2.py --data ~/pcam --width 1 --epochs 100 --batch-size 64 --device cuda

The results folder, `results/<the settings>/`, then holds

    table.md, table.json           the two tables that are printed at the end
    report.html                    all of it on one page, with pictures, that needs no network
    pictures/                      the pictures: training, tables, weight ranges, turned images, examples
    config.json                    the settings
    <model>/model.safetensors      the trained weights of lowest validation loss, as a plain torch model
    <model>/*.ckpt                 Lightning's checkpoints: of the best, the last and the epoch before it
    <model>/model.onnx             the INT8 network for the device
    <model>/model.float.onnx       the equalized FP32 network, and AIMET's model.encodings for it
    <model>/verification.*         what the INT8 file does in onnxruntime; text and JSON
    equivariant/equalization.*     what was equalized with what, what was left out and why; text and JSON
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

console = get_console()  # the progress bar uses it too, so that the two do not mix


def _how_to_go_on() -> str:
    arguments = [argument for argument in sys.argv if argument != "--resume"]
    return f"All finished epochs are kept; to go on:\n  {shlex.join(['python', *arguments, '--resume'])}"


@options.command(interrupted=_how_to_go_on)
def main(request: Request) -> None:
    """Train MobileNetV2, conventional and rotation-equivariant, and print what INT8 costs each of them."""
    (settings,) = request.prepare([request.settings])
    run(settings, request.results, workers=request.workers, resume=request.resume)


def run(settings: Settings, results: Path, *, workers: int = 0, resume: bool = False) -> list[TableRow]:
    """Do the whole experiment and return the tables' rows: data, training, INT8, ONNX, tables, report."""
    # What is slow to import comes after what can be refused, so that a mistake shows at once.
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
    if not is_first_process():  # of several GPUs; the others' work is done
        return []

    # Each network: exported, equalized, simulated in INT8, deployed and measured.
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
    """Return the numbers of images in words."""
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
    """Print what is known of a network before the tables are."""
    sizes = (f"{size / 1e3:,.0f} KB" for size in (row.device.fp32_bytes, row.device.int8_bytes))
    say(f"\n[bold]{row.model}[/]  {row.parameters:,} parameters")
    say(f"  test accuracy  FP32 {row.fp32_accuracy:.1%}  INT8 {row.int8_accuracy:.1%}")
    say("  ONNX file      FP32 {}  INT8 {}".format(*sizes))


if __name__ == "__main__":
    options.start(main)
