"""Trains and quantizes all networks of the paper's table, one after the other, and prints the table.

The networks follow table 1 of arXiv 2004.09691: MobileNetV2, conventional and equivariant (C4 and C8, each
with both kinds of depthwise layers), and DenseNet, conventional, P4 and P4M. The DenseNets are from Veeling
et al., "Rotation Equivariant CNNs for Digital Pathology", 2018, arXiv 1806.03962.

    $ python recipes/pcam_table.py --data ~/pcam --download --width 1 --crop 95 --epochs 100 --device cuda

After an interruption, run the same command again. The recipe resumes at the interrupted epoch. It reads the
results of each finished network with the same settings and does not train that network again. Each network
has its own folder under `results/`, with the files of `recipes/pcam_mnv2.py`. The folder
`results/table-<the settings>/` holds the table of all networks and a report.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import options
from options import Request, say
from pcam_mnv2 import NOTES, print_tables, run, write_tables
from rich.markup import escape

from eq_aimet.experiments import ResultsFolder, Settings, TableRow
from eq_aimet.experiments.foreign_files import read_json
from eq_aimet.files import data_error

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


@options.command(
    interrupted=lambda: "All finished epochs are kept; the same command goes on.",
    leave_out=("model", "architecture", "group", "reflections", "depthwise", "resume"),
)
def main(request: Request) -> None:
    """Train and quantize all networks of the paper's table, and print the table."""
    runs = request.prepare([replace(request.settings, **network) for network in NETWORKS])
    make_table(runs, request.results, workers=request.workers)


def make_table(runs: list[Settings], results: Path, *, workers: int) -> None:
    """Do each unfinished run, then write and print the table of all runs."""
    rows = []
    for settings in runs:
        finished = results / settings.run_name / "table.json"
        if finished.exists():
            ResultsFolder.open(finished.parent, settings.to_dict(), resume=True)  # raises for other settings
            row = read_row(finished)
            say(f"[bold]{escape(settings.title)}[/]  is finished: {escape(str(finished.parent))}")
        else:
            say(f"\n[bold]{escape(settings.title)}[/]")
            found = run(settings, results, workers=workers, resume=True)
            if not found:  # this process is not the first of several
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


def read_row(file: Path) -> TableRow:
    """Return the row of a finished run of one network."""
    expected, remedy = "the row of one network", "Remove the file to measure again."
    rows = read_json(file, expected=expected, remedy=remedy)
    if not isinstance(rows, list) or len(rows) != 1:
        raise data_error(file, received="something else", expected=expected, remedy=remedy)
    return TableRow.from_dict(rows[0])


if __name__ == "__main__":
    options.start(main)
