"""The paper's table: what INT8 costs each model, and how far a turned image moves its answer.

After table 1 of Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for Limited-Resources
Deep Learning", arXiv 2004.09691. A second table has what the exported files do on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from eq_aimet.experiments.device_figures import DeviceFigures

__all__ = ["TableRow", "markdown_device_table", "markdown_table", "terminal_device_table", "terminal_table"]

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
_DEVICE_HEADINGS = (
    "model",
    "FP32 file",
    "INT8 file",
    "FP32 latency",
    "INT8 latency",
    "turned: identical",
    "largest change",
)


@dataclass(frozen=True)
class TableRow:
    """What was measured of one model.

    Attributes:
        model: The model's name.
        parameters: How many numbers the training learns.
        fp32_accuracy: The share of test images that are classified rightly, from 0 to 1.
        int8_accuracy: The same of the simulated INT8 model.
        fp32_error_90: The worst relative change of the logits under turns by multiples of 90°.
        int8_error_90: The same of the simulated INT8 model.
        fp32_error_45: The relative change of the logits under a turn by 45°.
        int8_error_45: The same of the simulated INT8 model.
        device: What was measured of the exported files.
    """

    model: str
    parameters: int
    fp32_accuracy: float
    int8_accuracy: float
    fp32_error_90: float
    int8_error_90: float
    fp32_error_45: float
    int8_error_45: float
    device: DeviceFigures

    @property
    def drop(self) -> float:
        """What INT8 costs in accuracy, from -1 to 1; below 0 if the INT8 model is the better one."""
        return self.fp32_accuracy - self.int8_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON, with what follows from them."""
        return {**asdict(self), "drop": self.drop, "device": self.device.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableRow:
        """Return the row of what `to_dict` returned.

        Raises:
            DataError: A value is missing.
        """
        from eq_aimet.experiments.device_figures import DeviceFigures

        try:
            own = {field.name: values[field.name] for field in fields(cls)}
            figures = {field.name: values["device"][field.name] for field in fields(DeviceFigures)}
        except (KeyError, TypeError) as error:
            raise DataError(
                f"a row of `table.json`: received no {error}; expected all that a run writes. "
                "Remove the file to measure again."
            ) from error
        return cls(**{**own, "device": DeviceFigures(**{**figures, "turns": tuple(figures["turns"])})})


def markdown_table(rows: Sequence[TableRow]) -> str:
    """Return accuracies and errors as a Markdown table that ends in a newline.

    Example:
        >>> from eq_aimet.experiments import DeviceFigures
        >>> device = DeviceFigures("onnxruntime", 2_800_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02, device)
        >>> print(markdown_table([row]).splitlines()[2])
        | equivariant | 12,345 | 91.0 % | 90.5 % | 0.5 | 1e-15 | 0 | 1e-02 | 2e-02 |
    """
    return _markdown(_HEADINGS, [_cells(row) for row in rows])


def markdown_device_table(rows: Sequence[TableRow]) -> str:
    """Return what the exported files do as a Markdown table that ends in a newline.

    Example:
        >>> from eq_aimet.experiments import DeviceFigures
        >>> device = DeviceFigures("onnxruntime", 2_800_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02, device)
        >>> print(markdown_device_table([row]).splitlines()[2])
        | equivariant | 2.80 MB | 260 KB | 1.50 ms | 1.20 ms | yes | 0 |
    """
    return _markdown(_DEVICE_HEADINGS, [_device_cells(row) for row in rows])


def terminal_table(rows: Sequence[TableRow], *, title: str | None = None) -> Table:
    """Return accuracies and errors as a table for a `rich` console, at most 80 columns wide.

    Example:
        >>> terminal_table([]).row_count
        0
    """
    return _terminal(_HEADINGS, [_cells(row) for row in rows], title)


def terminal_device_table(rows: Sequence[TableRow], *, title: str | None = None) -> Table:
    """Return what the exported files do as a table for a `rich` console, at most 80 columns wide.

    Example:
        >>> terminal_device_table([]).row_count
        0
    """
    return _terminal(_DEVICE_HEADINGS, [_device_cells(row) for row in rows], title)


def _markdown(headings: tuple[str, ...], body: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---", *("---:" for _ in headings[1:])), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _terminal(headings: tuple[str, ...], body: Sequence[tuple[str, ...]], title: str | None) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", title_style="bold"
    )
    for index, heading in enumerate(headings):
        # "FP32 accuracy" on two lines, so that the table fits a terminal of 80 columns.
        first, _, second = heading.replace(" error", "").partition(" ")
        # Only the names may break, so that the figures stay whole.
        table.add_column(f"{first}\n{second}", justify="right" if index else "left", no_wrap=index > 0)
    for cells in body:
        table.add_row(*cells)
    return table


def _cells(row: TableRow) -> tuple[str, ...]:
    errors = (row.fp32_error_90, row.int8_error_90, row.fp32_error_45, row.int8_error_45)
    return (
        row.model,
        f"{row.parameters:,}",
        f"{100 * row.fp32_accuracy:.1f} %",
        f"{100 * row.int8_accuracy:.1f} %",
        f"{100 * row.drop:.1f}",
        *map(_error, errors),
    )


def _device_cells(row: TableRow) -> tuple[str, ...]:
    device = row.device
    return (
        row.model,
        _size(device.fp32_bytes),
        _size(device.int8_bytes),
        f"{device.fp32_milliseconds:.2f} ms",
        f"{device.int8_milliseconds:.2f} ms",
        "yes" if device.bit_identical else "no",
        _error(device.worst_change),
    )


def _error(error: float) -> str:
    return "0" if error == 0 else f"{error:.0e}"


def _size(count: int) -> str:
    return f"{count / 1e3:.0f} KB" if count < 999_500 else f"{count / 1e6:.2f} MB"
