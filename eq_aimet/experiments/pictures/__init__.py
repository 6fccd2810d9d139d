"""Pictures of a run, and one HTML report of it. Needs `pip install 'eq_aimet[recipes]'`.

Measuring (`measure_…`) is separate from drawing (`plot_…`, which returns a PNG file's content). The names
load what they need at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
