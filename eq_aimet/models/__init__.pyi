from .densenet import DenseNet
from .equivariant_densenet import EquivariantDenseNet
from .equivariant_mobilenet_v2 import EquivariantMobileNetV2
from .mobilenet_v2 import MobileNetV2

__all__ = ["DenseNet", "EquivariantDenseNet", "EquivariantMobileNetV2", "MobileNetV2"]
