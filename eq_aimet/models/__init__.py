"""MobileNetV2s and DenseNets, conventional and equivariant, each pair from one table.

The equivariant ones need e2cnn, which is slow to import, and are loaded when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
