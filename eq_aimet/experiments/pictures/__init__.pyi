from .html_report import Picture, Section, build_html_report, write_html_report
from .predictions import Predictions, choose_examples, measure_predictions
from .predictions_plot import plot_examples
from .range_plots import plot_layer_ranges, plot_range_ratios
from .stability import Stability, measure_stability
from .stability_plot import plot_stability
from .training_curves import plot_training
from .versions import library_versions
from .weight_ranges import LayerRanges, measure_weight_ranges, most_uneven_layer

__all__ = [
    "plot_training",
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
    "Section",
    "build_html_report",
    "write_html_report",
    "library_versions",
]
