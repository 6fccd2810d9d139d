"""The paper's table: the accuracy that INT8 costs each model, and the change of its logits under turns.

The table follows table 1 of Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for
Limited-Resources Deep Learning", arXiv 2004.09691. A second table shows the size and speed of the exported
files on the device, and whether a turn changes their logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import DataError
from eq_aimet.experiments.foreign_files import READING_ERRORS
from eq_aimet.experiments.tables import Table

if TYPE_CHECKING:
    from eq_aimet.experiments.device_figures import DeviceFigures

__all__ = ["TableRow", "file_table", "network_table"]

_HEADINGS = (
    "model",
    "weights",
    "FP32 accuracy",
    "INT8 accuracy",
    "drop",
    "90° FP32",
    "90° INT8",
    "45° FP32",
    "45° INT8",
)
_FILE_HEADINGS = (
    "model",
    "FP32 file",
    "INT8 file",
    "FP32 latency",
    "INT8 latency",
    "turned: identical",
    "largest change",
)

_ANSWERS = {True: "yes", False: "no", None: "not judged"}


@dataclass(frozen=True)
class TableRow:
    """The measurements of one model.

    Attributes:
        model: The model's name.
        parameters: The number of trained parameters.
        fp32_accuracy: The share of test images that are classified rightly, from 0 to 1.
        int8_accuracy: The same of the simulated INT8 model.
        fp32_error_90: The worst relative change of the logits under turns by multiples of 90°.
        int8_error_90: The same of the simulated INT8 model.
        fp32_error_45: The relative change of the logits under a turn by 45°.
        int8_error_45: The same of the simulated INT8 model.
        device: The measurements of the exported files.
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
        """The accuracy that INT8 costs, from -1 to 1; it is below 0 if the INT8 model is better."""
        return self.fp32_accuracy - self.int8_accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON, with the derived values."""
        return {**asdict(self), "drop": self.drop, "device": self.device.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableRow:
        """Return the row of the plain values that `to_dict` returned.

        Raises:
            DataError: A value is missing or has the wrong type.
        """
        from eq_aimet.experiments.device_figures import DeviceFigures

        try:
            own = {field.name: _read(field, values) for field in fields(cls) if field.name != "device"}
            device = {
                field.name: _read(field, values["device"])
                for field in fields(DeviceFigures)
                if field.default is MISSING or field.name in values["device"]
            }
        except READING_ERRORS as error:
            raise DataError(
                f"a row of `table.json`: received no usable {error}; expected all values that a run writes. "
                "Remove the file to measure again."
            ) from error
        return cls(**own, device=DeviceFigures(**device))


def network_table(rows: Sequence[TableRow], *, caption: str = "", notes: Sequence[str] = ()) -> Table:
    """Return the table of accuracies and rotation errors.

    Example:
        >>> from eq_aimet.experiments import DeviceFigures
        >>> device = DeviceFigures("onnxruntime", 2_800_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02, device)
        >>> network_table([row]).rows[0]
        ('equivariant', '12,345', '91.0 %', '90.5 %', '0.5', '1e-15', '0', '1e-02', '2e-02')
    """
    return Table(_HEADINGS, tuple(_cells(row) for row in rows), caption, tuple(notes))


def file_table(rows: Sequence[TableRow], *, caption: str = "", notes: Sequence[str] = ()) -> Table:
    """Return the table of the exported files: size, speed, and whether a turn changes the logits.

    A file whose verification proved nothing is "not judged"; a note below the table names the reason.

    Example:
        >>> from eq_aimet.experiments import DeviceFigures
        >>> device = DeviceFigures("onnxruntime", 2_800_000, 260_000, 1.5, 1.2, ("90°",), 16, 0.0, True)
        >>> row = TableRow("equivariant", 12345, 0.91, 0.905, 1.2e-15, 0.0, 0.013, 0.02, device)
        >>> file_table([row]).rows[0]
        ('equivariant', '2.80 MB', '260 KB', '1.50 ms', '1.20 ms', 'yes', '0')
    """
    cells = tuple(_file_cells(row) for row in rows)
    return Table(_FILE_HEADINGS, cells, caption, (*notes, *_notes_of_unjudged(rows)))


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool | None": (bool, type(None)),
    "tuple[str, ...]": (list, tuple),
}


def _read(field: Field[Any], values: Mapping[str, Any]) -> Any:
    value, kinds = values[field.name], _TYPES[str(field.type)]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(repr(field.name))
    return tuple(map(str, value)) if isinstance(value, list) else value


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


def _file_cells(row: TableRow) -> tuple[str, ...]:
    device = row.device
    return (
        row.model,
        _size(device.fp32_bytes),
        _size(device.int8_bytes),
        f"{device.fp32_milliseconds:.2f} ms",
        f"{device.int8_milliseconds:.2f} ms",
        _ANSWERS[device.bit_identical],
        _error(device.worst_change),
    )


def _notes_of_unjudged(rows: Sequence[TableRow]) -> list[str]:
    """Return one line with the reason for each file that was not judged."""
    nothing = "the verification tried no turn"
    return [
        f"not judged: {row.model}: {' '.join(row.device.unverified) or nothing}"
        for row in rows
        if row.device.bit_identical is None
    ]


def _error(error: float) -> str:
    return "0" if error == 0 else f"{error:.0e}"


def _size(count: int) -> str:
    return f"{count / 1e3:.0f} KB" if count < 999_500 else f"{count / 1e6:.2f} MB"
