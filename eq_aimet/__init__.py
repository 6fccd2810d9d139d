"""Quantize rotation-equivariant networks with AIMET so that they stay equivariant in INT8.

The public names, which are listed in `__init__.pyi`, load what they need at first use, so that importing the
package is fast.
"""

import lazy_loader

from eq_aimet.registration import connect

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

connect()
