"""e2cnn as one of the libraries that eq_aimet exports from."""

from __future__ import annotations

from e2cnn.nn import EquivariantModule, FieldType, GeometricTensor

from eq_aimet.adapters.e2cnn.groups import group_elements, move_image
from eq_aimet.adapters.e2cnn.modules import COMPOSITES, CONVERTERS, TRACED_THROUGH
from eq_aimet.adapters.library import Library

__all__ = ["LIBRARY"]

LIBRARY = Library(
    package="e2cnn",
    module_class=EquivariantModule,
    tensor_class=GeometricTensor,
    type_class=FieldType,
    converters=CONVERTERS,
    traced_through=TRACED_THROUGH,
    composites=COMPOSITES,
    group_elements=group_elements,
    move_image=move_image,
)
