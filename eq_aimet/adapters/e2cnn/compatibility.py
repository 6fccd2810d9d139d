"""Mending of e2cnn 0.2.3 on current torch and numpy.

Five of its lines fail on torch 2 and numpy 2; another warns, and some modules turn float64 into float32.
Each mend first probes whether e2cnn needs it here and leaves it alone where it doesn't, so that a repaired
e2cnn runs as its authors wrote it. A mend changes names inside the one e2cnn module that needs it, never
torch or numpy, and no number in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from e2cnn.group.groups import o2group
from e2cnn.kernels import irreps_basis
from e2cnn.kernels import utils as kernel_utils
from e2cnn.nn.modules.batchnormalization import gnorm
from e2cnn.nn.modules.r2_conv import basisexpansion_blocks, basisexpansion_singleblock

from eq_aimet.adapters.e2cnn.precision import follow_double, single_precision_classes
from eq_aimet.adapters.e2cnn.rebinding import Namespace

__all__ = ["Mend", "MENDS", "apply"]

logger = logging.getLogger(__name__)


class Mend(NamedTuple):
    """One fault of e2cnn: what breaks, a probe that says whether it does here, and the cure."""

    name: str
    is_needed: Callable[[], bool]
    cure: Callable[[], None]


def apply(mends: tuple[Mend, ...] | None = None) -> tuple[str, ...]:
    """Works in place on e2cnn's modules; returns the names of the mends that were needed.

    Args:
        mends: what to try, all of `MENDS` by default.

    >>> apply()  # importing the adapter has done it: nothing is left to mend
    ()
    """
    done = []
    for mend in MENDS if mends is None else mends:
        if mend.is_needed():
            mend.cure()
            done.append(mend.name)
            logger.debug("mended e2cnn: %s", mend.name)
    return tuple(done)


def _uses_uint8_masks() -> bool:
    """Whether a mask of e2cnn's single-block expansion is uint8, which torch refuses or warns of."""
    module = basisexpansion_singleblock
    names = module.SingleBlockBasisExpansion.__init__.__code__.co_names
    return "uint8" in names and module.torch.uint8 is torch.uint8


def _make_masks_boolean() -> None:
    module = basisexpansion_singleblock
    module.np = Namespace(module.np, uint8=np.bool_)
    module.torch = Namespace(module.torch, uint8=torch.bool)


def _solutions() -> list[type]:
    """The solution classes whose `__hash__` reads the bytes of an array through the removed `tostring`."""
    found = []
    for solution in vars(irreps_basis).values():
        if isinstance(solution, type) and issubclass(solution, irreps_basis.IrrepBasis):
            code = getattr(vars(solution).get("__hash__"), "__code__", None)
            if code is not None and "tostring" in code.co_names:
                found.append(solution)
    return found


def _calls_tostring() -> bool:
    return not hasattr(np.ndarray, "tostring") and bool(_solutions())


def _hash_bytes_instead() -> None:
    for solution in _solutions():
        solution.__hash__ = _hash_solution  # type: ignore[method-assign, assignment]


def _hash_solution(solution: Any) -> int:
    """e2cnn's hash with `tobytes`, the same bytes under the name that numpy kept."""
    gamma = solution.gamma
    return (
        hash(solution.in_irrep)
        + hash(solution.out_irrep)
        + hash(solution.mu.tobytes())
        + hash(gamma.tobytes() if isinstance(gamma, np.ndarray) else gamma)
    )


def _forbids_copies() -> bool:
    """Whether `psi` and its like fail on a number, of which numpy 2 makes no array without a copy."""
    try:
        kernel_utils.psi(0.5, k=1, gamma=0.0)
    except ValueError:
        return True
    return False


def _allow_copies() -> None:
    kernel_utils.np = Namespace(kernel_utils.np, array=_array)


def _array(value: Any, copy: bool = True) -> np.ndarray:
    """`numpy.array` with numpy 1's meaning of `copy=False`: copy only where needed."""
    return np.array(value) if copy else np.asarray(value)


def _lacks_float() -> bool:
    """Whether `O2` reads `np.float`, which numpy 1.24 removed."""
    names = {name for code in _codes(o2group.O2) for name in code.co_names}
    return "float" in names and not hasattr(o2group.np, "float")


def _codes(owner: type) -> list[Any]:
    return [method.__code__ for method in vars(owner).values() if hasattr(method, "__code__")]


def _give_float() -> None:
    o2group.np = Namespace(o2group.np, float=float)


def _answers_in_single() -> bool:
    return bool(single_precision_classes())


def _leaves_indexing_open() -> bool:
    """Whether the blocks expansion calls `torch.meshgrid` without `indexing`, of which torch warns."""
    module = basisexpansion_blocks
    code = module.BlocksBasisExpansion.__init__.__code__
    open_call = "meshgrid" in code.co_names and not any(
        isinstance(constant, tuple) and "indexing" in constant for constant in code.co_consts
    )
    return open_call and module.torch.meshgrid is torch.meshgrid


def _say_indexing() -> None:
    basisexpansion_blocks.torch = Namespace(basisexpansion_blocks.torch, meshgrid=_meshgrid)


def _meshgrid(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """`torch.meshgrid` with the indexing that torch takes when none is named."""
    return torch.meshgrid(tensors, indexing="ij")


def _views_einsums() -> bool:
    """Whether `GNormBatchNorm` takes a view of an einsum, which torch no longer lays out in order."""
    code = gnorm.GNormBatchNorm.forward.__code__
    moved = gnorm.torch.einsum("ds,bcsxy->bcdxy", (torch.eye(2), torch.zeros(2, 3, 2, 2, 2)))
    return {"einsum", "view"} <= set(code.co_names) and not moved.is_contiguous()


def _lay_out_einsums() -> None:
    gnorm.torch = Namespace(gnorm.torch, einsum=_contiguous_einsum)


def _contiguous_einsum(*arguments: Any) -> torch.Tensor:
    """`torch.einsum` whose result lies in memory in the order of its dimensions."""
    return torch.einsum(*arguments).contiguous()


MENDS = (
    Mend("uint8 masks: 1×1 R2Conv from or to trivial fields", _uses_uint8_masks, _make_masks_boolean),
    Mend("ndarray.tostring: R2Conv of D_N, flips, SO(2) and O(2)", _calls_tostring, _hash_bytes_instead),
    Mend("np.array(copy=False): R2Conv of D4 and D8", _forbids_copies, _allow_copies),
    Mend("np.float: induced representations of O(2)", _lacks_float, _give_float),
    Mend("float32 outputs of float64 fields", _answers_in_single, follow_double),
    Mend("meshgrid without indexing: mixed field types", _leaves_indexing_open, _say_indexing),
    Mend("views of einsums: GNormBatchNorm of regular fields", _views_einsums, _lay_out_einsums),
)
