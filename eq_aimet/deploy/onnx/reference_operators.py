"""Operators that move numbers by their places, which ONNX's own reference computes wrongly or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.reference.op_run import OpRun

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
    """A maximum pooling of images that also returns the place of each maximum in the whole tensor.

    ONNX's own implementation returns wrong places for several images or channels.
    """

    op_domain = _DOMAIN

    def _run(
        self, x: Any, kernel_shape: Any = None, strides: Any = None, pads: Any = None, dilations: Any = None,
        ceil_mode: Any = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        steps, holes = strides or [1, 1], dilations or [1, 1]
        top, left, bottom, right = pads or [0, 0, 0, 0]
        ends = []
        for side, before, after, axis in ((x.shape[2], top, bottom, 0), (x.shape[3], left, right, 1)):
            span = side + before + after - holes[axis] * (kernel_shape[axis] - 1) - 1
            count = -(-span // steps[axis]) if ceil_mode else span // steps[axis]
            if ceil_mode and count * steps[axis] >= side + before:
                count -= 1  # the last window would start in the padding
            ends.append(count + 1)
        reach = [(end - 1) * step + 1 for end, step in zip(ends, steps, strict=True)]
        room = [span + hole * (size - 1) for span, hole, size in zip(reach, holes, kernel_shape, strict=True)]
        widths = ((0, 0), (0, 0), (top, max(bottom, room[0])), (left, max(right, room[1])))
        values = np.pad(x, widths, constant_values=-np.inf)
        places = np.pad(np.arange(x.size).reshape(x.shape), widths)
        corners = [
            (row * holes[0], column * holes[1])
            for row in range(kernel_shape[0])
            for column in range(kernel_shape[1])
        ]
        seen, where = (
            np.stack(
                [
                    array[:, :, y : y + reach[0] : steps[0], left : left + reach[1] : steps[1]]
                    for y, left in corners
                ]
            )
            for array in (values, places)
        )
        best = seen.argmax(0)[None]  # the first of equal ones, as in the runtime
        return np.take_along_axis(seen, best, 0)[0], np.take_along_axis(where, best, 0)[0]


MOVING_OPERATORS = (_GatherElements, _MaxPoolPlaces)


def use_own_operators(node: onnx.NodeProto) -> None:
    """Let `node` be computed by an operator of this file if it has one; works in place."""
    if node.op_type == "GatherElements" and not node.domain:
        node.op_type, node.domain = _GatherElements.__name__, _DOMAIN
    elif node.op_type == "MaxPool" and len(node.output) == 2 and not node.domain:
        kept = [a for a in node.attribute if a.name not in ("storage_order", "auto_pad")]
        node.op_type, node.domain = _MaxPoolPlaces.__name__, _DOMAIN
        del node.attribute[:]
        node.attribute.extend(kept)
