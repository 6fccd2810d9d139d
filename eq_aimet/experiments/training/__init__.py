"""What the recipes share: data, training, results and tables. Needs `pip install 'eq_aimet[recipes]'`.

The names load what they need at first use: Lightning takes ten seconds to import, the check of a run's
settings none.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
