"""Operators that select numbers by position, for which ONNX's own reference is wrong or incomplete."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.reference.op_run import OpRun

from eq_aimet.deploy.onnx.max_pooling import max_pool

__all__ = ["MOVING_OPERATORS", "use_own_operators"]

_DOMAIN = "eq_aimet"


class _GatherElements(OpRun):  # type: ignore[misc]
    """ONNX's operator; onnx's own implementation takes at most 64 positions along the axis."""

    op_domain = _DOMAIN

    def _run(self, data: Any, indices: Any, axis: Any = None) -> tuple[np.ndarray]:
        along = (axis or 0) % data.ndim
        kept = tuple(slice(None if place == along else size) for place, size in enumerate(indices.shape))
        return (np.take_along_axis(data[kept], indices, along),)


class _MaxPoolPlaces(OpRun):  # type: ignore[misc]  # onnx is untyped
    """A maximum pooling that also returns the place of each maximum in the whole tensor.

    ONNX's own implementation returns wrong places for several images or channels.
    """

    op_domain = _DOMAIN

    def _run(
        self, x: Any, kernel_shape: Any = None, strides: Any = None, pads: Any = None, dilations: Any = None,
        ceil_mode: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        ones = [1] * len(kernel_shape)
        return max_pool(
            x,
            kernel_shape,
            strides=strides or ones,
            pads=pads or [0] * 2 * len(ones),
            dilations=dilations or ones,
            ceil_mode=bool(ceil_mode),
        )


MOVING_OPERATORS = (_GatherElements, _MaxPoolPlaces)


def use_own_operators(node: onnx.NodeProto) -> None:
    """Replace `node`'s operator by the operator of this file if the file has one; work in place."""
    if node.op_type == "GatherElements" and not node.domain:
        node.op_type, node.domain = _GatherElements.__name__, _DOMAIN
    elif node.op_type == "MaxPool" and len(node.output) == 2 and not node.domain:
        kept = [a for a in node.attribute if a.name not in ("storage_order", "auto_pad")]
        node.op_type, node.domain = _MaxPoolPlaces.__name__, _DOMAIN
        del node.attribute[:]
        node.attribute.extend(kept)
