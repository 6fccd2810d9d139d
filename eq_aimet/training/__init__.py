"""What the recipes share: data, training, results and tables. Needs `pip install 'eq_aimet[recipes]'`.

The names load what they need at first use: Lightning takes ten seconds to import, the check of a run's
settings none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.training.classifier import ImageClassifier
    from eq_aimet.training.datamodule import ImageDataModule, PatchDataModule
    from eq_aimet.training.device import DeviceFigures
    from eq_aimet.training.evaluation import measure_accuracy
    from eq_aimet.training.fit import best_weights, train_classifier
    from eq_aimet.training.history import EpochRecord
    from eq_aimet.training.processes import is_first_process
    from eq_aimet.training.quiet import quiet_libraries
    from eq_aimet.training.results import ResultsFolder
    from eq_aimet.training.settings import Settings
    from eq_aimet.training.table import (
        TableRow,
        markdown_device_table,
        markdown_table,
        terminal_device_table,
        terminal_table,
    )

__all__ = [
    "Settings",
    "ResultsFolder",
    "PatchDataModule",
    "ImageDataModule",
    "ImageClassifier",
    "train_classifier",
    "best_weights",
    "EpochRecord",
    "measure_accuracy",
    "is_first_process",
    "DeviceFigures",
    "TableRow",
    "markdown_table",
    "markdown_device_table",
    "terminal_table",
    "terminal_device_table",
    "quiet_libraries",
]

_HOME = {
    "Settings": "settings",
    "ResultsFolder": "results",
    "PatchDataModule": "datamodule",
    "ImageDataModule": "datamodule",
    "ImageClassifier": "classifier",
    "train_classifier": "fit",
    "best_weights": "fit",
    "EpochRecord": "history",
    "measure_accuracy": "evaluation",
    "is_first_process": "processes",
    "DeviceFigures": "device",
    "TableRow": "table",
    "markdown_table": "table",
    "markdown_device_table": "table",
    "terminal_table": "table",
    "terminal_device_table": "table",
    "quiet_libraries": "quiet",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
