"""Pictures of a run, and one HTML report of it. Needs `pip install 'eq_aimet[recipes]'`.

Measuring (`measure_…`) is separate from drawing (`plot_…`, which returns a PNG file's content). The names
load what they need at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.pictures.html_report import Picture, Section, Table, build_html_report, write_html_report
    from eq_aimet.pictures.predictions import Predictions, choose_examples, measure_predictions
    from eq_aimet.pictures.predictions_plot import plot_examples
    from eq_aimet.pictures.range_plots import plot_layer_ranges, plot_range_ratios
    from eq_aimet.pictures.run_report import RunFindings, write_run_report
    from eq_aimet.pictures.stability import Stability, measure_stability
    from eq_aimet.pictures.stability_plot import plot_stability
    from eq_aimet.pictures.table_plot import plot_table
    from eq_aimet.pictures.training_curves import plot_training
    from eq_aimet.pictures.versions import library_versions
    from eq_aimet.pictures.weight_ranges import LayerRanges, measure_weight_ranges, most_uneven_layer

_HOME = {
    "plot_training": "training_curves",
    "plot_table": "table_plot",
    "LayerRanges": "weight_ranges",
    "measure_weight_ranges": "weight_ranges",
    "most_uneven_layer": "weight_ranges",
    "plot_layer_ranges": "range_plots",
    "plot_range_ratios": "range_plots",
    "Stability": "stability",
    "measure_stability": "stability",
    "plot_stability": "stability_plot",
    "Predictions": "predictions",
    "measure_predictions": "predictions",
    "choose_examples": "predictions",
    "plot_examples": "predictions_plot",
    "Picture": "html_report",
    "Table": "html_report",
    "Section": "html_report",
    "build_html_report": "html_report",
    "write_html_report": "html_report",
    "RunFindings": "run_report",
    "write_run_report": "run_report",
    "library_versions": "versions",
}

__all__ = [
    "plot_training",
    "plot_table",
    "LayerRanges",
    "measure_weight_ranges",
    "most_uneven_layer",
    "plot_layer_ranges",
    "plot_range_ratios",
    "Stability",
    "measure_stability",
    "plot_stability",
    "Predictions",
    "measure_predictions",
    "choose_examples",
    "plot_examples",
    "Picture",
    "Table",
    "Section",
    "build_html_report",
    "write_html_report",
    "RunFindings",
    "write_run_report",
    "library_versions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
