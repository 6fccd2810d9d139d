"""The training of image classifiers through Lightning. It needs `pip install 'eq_aimet[recipes]'`.

Lightning takes ten seconds to import; each name here imports it at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
