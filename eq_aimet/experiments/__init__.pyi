from .datasets import count_images, open_data
from .deployment import deploy
from .device_figures import DeviceFigures
from .experiment import NetworkFindings, quantize_and_measure
from .networks import CLASS_NAMES, build_network, check_network
from .quantization import EQUALIZATIONS, equalize, simulate
from .results import ResultsFolder
from .run_report import RunFindings, write_run_report
from .settings import Settings
from .table import TableRow, markdown_device_table, markdown_table, terminal_device_table, terminal_table
from .table_plot import plot_table
from .trained import count_parameters, train_network

__all__ = [
    "Settings",
    "ResultsFolder",
    "DeviceFigures",
    "TableRow",
    "markdown_table",
    "markdown_device_table",
    "terminal_table",
    "terminal_device_table",
    "plot_table",
    "RunFindings",
    "write_run_report",
    "CLASS_NAMES",
    "build_network",
    "check_network",
    "count_images",
    "open_data",
    "count_parameters",
    "train_network",
    "EQUALIZATIONS",
    "equalize",
    "simulate",
    "deploy",
    "NetworkFindings",
    "quantize_and_measure",
]
