"""Pictures of a run, and one HTML report of it. Needs `pip install 'eq_aimet[recipes]'`.

A `measure_…` function measures; a `plot_…` function draws, and returns the bytes of a PNG file. A new picture
goes into a module of its own here. `eq_aimet.experiments.run_sections` puts it into the report.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
