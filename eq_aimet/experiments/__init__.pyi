from .datasets import count_images, open_data
from .deployment import deploy
from .device_figures import DeviceFigures
from .experiment import NetworkFindings, quantize_and_measure
from .networks import CLASS_NAMES, build_network, check_network
from .quantization import EQUALIZATIONS, equalize, simulate
from .results import ResultsFolder
from .run_report import RunFindings, write_run_report
from .run_table import TableRow, file_table, network_table
from .settings import Settings
from .table_plot import plot_table
from .tables import Table
from .trained import count_parameters, train_network

__all__ = [
    "Settings",
    "ResultsFolder",
    "DeviceFigures",
    "TableRow",
    "network_table",
    "file_table",
    "Table",
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
