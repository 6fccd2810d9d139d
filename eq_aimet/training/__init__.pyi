from .classifier import ImageClassifier
from .datamodule import ImageDataModule, PatchDataModule
from .device import DeviceFigures
from .evaluation import measure_accuracy
from .fit import best_weights, train_classifier
from .history import EpochRecord
from .processes import is_first_process
from .quiet import quiet_libraries
from .results import ResultsFolder
from .settings import Settings
from .table import TableRow, markdown_device_table, markdown_table, terminal_device_table, terminal_table

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
