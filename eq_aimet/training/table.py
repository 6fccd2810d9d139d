"""The paper's table: what INT8 costs each model, and how far a turned image moves its answer.

After table 1 of Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for Limited-Resources
Deep Learning", arXiv 2004.09691.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["TableRow", "markdown_table", "terminal_table"]

_HEADINGS = (
    "model",
    "weights",
    "FP32 accuracy",
    "INT8 accuracy",
    "drop",
    "90° error FP32",
    "90° error INT8",
    "45° error FP32",
    "45° error INT8",
)


@dataclass(frozen=True)
class TableRow:
    """What was measured of one model.

    Attributes:
        model: the model's name.
        parameters: how many numbers the training learns.
        fp32_accuracy: the share of test images that are classified rightly, from 0 to 1.
        int8_accuracy: the same of the simulated INT8 model.
        fp32_error_90: the worst relative change of the logits under turns by multiples of 90°.
        int8_error_90: the same of the simulated INT8 model.
        fp32_error_45: the relative change of the logits under a turn by 45°.
        int8_error_45: the same of the simulated INT8 model.
    """

    model: str
    parameters: int
    fp32_accuracy: float
    int8_accuracy: float
    fp32_error_90: float
    int8_error_90: float
    fp32_error_45: float
    int8_error_45: float

    @property
    def drop(self) -> float:
        """What INT8 costs in accuracy, from -1 to 1; below 0 if the INT8 model is the better one."""
        return self.fp32_accuracy - self.int8_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain values for JSON, with the drop."""
        return {**asdict(self), "drop": self.drop}


def markdown_table(rows: Sequence[TableRow]) -> str:
    """Returns the rows as a Markdown table that ends in a newline.

    Example:
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02)
        >>> print(markdown_table([row]).splitlines()[2])
        | equivariant | 12,345 | 91.0 % | 90.5 % | 0.5 | 1e-15 | 0 | 1e-02 | 2e-02 |
    """
    lines = [_HEADINGS, ("---", *("---:" for _ in _HEADINGS[1:])), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def terminal_table(rows: Sequence[TableRow], *, title: str | None = None) -> Table:
    """Returns the rows as a table for a `rich` console.

    Example:
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02)
        >>> terminal_table([row]).row_count
        1
    """
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="bold"
    )
    for index, heading in enumerate(_HEADINGS):
        # "FP32 accuracy" on two lines, so that the table fits a terminal of 80 columns.
        first, _, second = heading.replace(" error", "").partition(" ")
        table.add_column(f"{first}\n{second}", justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: TableRow) -> tuple[str, ...]:
    errors = (row.fp32_error_90, row.int8_error_90, row.fp32_error_45, row.int8_error_45)
    return (
        row.model,
        f"{row.parameters:,}",
        f"{100 * row.fp32_accuracy:.1f} %",
        f"{100 * row.int8_accuracy:.1f} %",
        f"{100 * row.drop:.1f}",
        *("0" if error == 0 else f"{error:.0e}" for error in errors),
    )
