"""What the recipes do with a network: build, train, quantize, deploy, measure. Needs the `recipes` extra.

The names load what they need at first use: AIMET and Lightning take ten seconds to import.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
