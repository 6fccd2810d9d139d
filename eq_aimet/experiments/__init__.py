"""The steps of the recipes: build, train, quantize, deploy, measure and draw. They need the `recipes` extra.

The module `data` holds the data sets, `training` the training, and `pictures` the pictures. AIMET and
Lightning take ten seconds to import, so each name here imports them only at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
