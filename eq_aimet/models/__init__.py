"""MobileNetV2s and DenseNets, conventional and equivariant, each pair from one table.

The equivariant networks need e2cnn, and e2cnn is slow to import. Python therefore loads an equivariant
network only at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
