"""Markdown for the benchmarks; each page of docs/ holds its tables between two marks."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from eq_aimet.experiments.tables import markdown_heading, markdown_row

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def publish(lines: Iterable[str], page: Path, *, write: bool) -> None:
    """Print each line as soon as it arrives; if `write` is set, put all lines between the page's marks."""
    printed = []
    for line in lines:
        print(line, flush=True)
        printed.append(line)
    if write:
        put_between_marks("\n".join(printed), page)


def put_between_marks(text: str, page: Path) -> None:
    """Replace the text between the page's two marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def heading(title: str, text: str, columns: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines above a table's first row."""
    yield from ("", f"## {title}", "", text, "", *markdown_heading(columns))


def row(*cells: str) -> str:
    """Return one line of a Markdown table."""
    return markdown_row(cells)


def origin(packages: Iterable[str], where: str = "") -> str:
    """Return the line that names the machine and the package versions of the measurement."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Measured on {where}{describe_machine()}; {versions}."


def describe_machine() -> str:
    """Return a text that names the processor, the number of cores and the system."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor} ({platform.machine()}), {os.cpu_count()} cores, {system}"
