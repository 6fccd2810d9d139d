"""MobileNetV2s, conventional and equivariant, from one table.

`EquivariantMobileNetV2` needs e2cnn, which is slow to import, and is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

from eq_aimet.models.mobilenet_v2 import MobileNetV2

if TYPE_CHECKING:
    from eq_aimet.models.equivariant_mobilenet_v2 import EquivariantMobileNetV2

__all__ = ["EquivariantMobileNetV2", "MobileNetV2"]


def __getattr__(name: str) -> Any:
    if name == "EquivariantMobileNetV2":
        from eq_aimet.models.equivariant_mobilenet_v2 import EquivariantMobileNetV2

        return EquivariantMobileNetV2
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
