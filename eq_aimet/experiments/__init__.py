"""The steps of the recipes: build, train, quantize, deploy, measure and draw. They need the `recipes` extra.

Data sets are in `data`, the training in `training`, pictures in `pictures`. AIMET and Lightning take ten
seconds to import; each name here imports them at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
