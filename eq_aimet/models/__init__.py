"""MobileNetV2s and DenseNets, conventional and equivariant, each pair from one table.

The equivariant ones need e2cnn, which is slow to import, and are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from eq_aimet.models.densenet import DenseNet
from eq_aimet.models.mobilenet_v2 import MobileNetV2

if TYPE_CHECKING:
    from eq_aimet.models.equivariant_densenet import EquivariantDenseNet
    from eq_aimet.models.equivariant_mobilenet_v2 import EquivariantMobileNetV2

__all__ = ["DenseNet", "EquivariantDenseNet", "EquivariantMobileNetV2", "MobileNetV2"]


def __getattr__(name: str) -> Any:
    if name == "EquivariantDenseNet":
        from eq_aimet.models.equivariant_densenet import EquivariantDenseNet

        return EquivariantDenseNet
    if name == "EquivariantMobileNetV2":
        from eq_aimet.models.equivariant_mobilenet_v2 import EquivariantMobileNetV2

        return EquivariantMobileNetV2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
