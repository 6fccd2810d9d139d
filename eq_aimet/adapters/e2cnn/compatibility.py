"""Mending of e2cnn 0.2.3 on current torch and numpy.

Five lines of e2cnn fail on torch 2 and numpy 2, and another line warns. Some modules turn float64 into
float32. Each mend first probes whether the installed e2cnn needs it. If e2cnn does not need the mend, the
mend changes nothing, so a repaired e2cnn runs as its authors wrote it. A mend changes names only inside the
e2cnn module that needs it. It never changes torch or numpy, and it changes no result in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from e2cnn import nn as enn
from e2cnn.group.groups import o2group
from e2cnn.kernels import irreps_basis
from e2cnn.kernels import utils as kernel_utils
from e2cnn.nn.modules.batchnormalization import gnorm
from e2cnn.nn.modules.r2_conv import basisexpansion_blocks, basisexpansion_singleblock

from eq_aimet.adapters.mending.mends import Mend, apply_mends, lay_out_einsums, views_einsums
from eq_aimet.adapters.mending.precision import follow_double, single_precision_classes
from eq_aimet.adapters.mending.rebinding import Namespace

__all__ = ["MENDS", "apply"]


def apply(mends: tuple[Mend, ...] | None = None) -> tuple[str, ...]:
    """Mend e2cnn in place where a probe finds a fault, and return the names of the applied mends.

    Args:
        mends: The mends to try, all of `MENDS` by default.

    Example:
        >>> apply()  # importing the adapter has done it: nothing is left to mend
        ()
    """
    return apply_mends("e2cnn", MENDS if mends is None else mends)


def _uses_uint8_masks() -> bool:
    """Return whether e2cnn's single-block expansion has a uint8 mask, which torch refuses or warns about."""
    module = basisexpansion_singleblock
    names = module.SingleBlockBasisExpansion.__init__.__code__.co_names
    return "uint8" in names and module.torch.uint8 is torch.uint8


def _make_masks_boolean() -> None:
    module = basisexpansion_singleblock
    module.np = Namespace(module.np, uint8=np.bool_)
    module.torch = Namespace(module.torch, uint8=torch.bool)


def _solutions() -> list[type]:
    """Return the solution classes whose `__hash__` calls `tostring`, which numpy has removed."""
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
    """Return e2cnn's hash, computed with `tobytes`, which returns the same bytes as `tostring`."""
    gamma = solution.gamma
    return (
        hash(solution.in_irrep)
        + hash(solution.out_irrep)
        + hash(solution.mu.tobytes())
        + hash(gamma.tobytes() if isinstance(gamma, np.ndarray) else gamma)
    )


def _forbids_copies() -> bool:
    """Return whether functions such as `psi` fail on a number, which numpy 2 must copy into an array."""
    try:
        kernel_utils.psi(0.5, k=1, gamma=0.0)
    except ValueError:
        return True
    return False


def _allow_copies() -> None:
    kernel_utils.np = Namespace(kernel_utils.np, array=_array)


def _array(value: Any, copy: bool = True) -> np.ndarray:
    """Return `numpy.array` of the arguments with numpy 1's meaning of `copy=False`: copy only if needed."""
    return np.array(value) if copy else np.asarray(value)


def _lacks_float() -> bool:
    """Return whether `O2` reads `np.float`, which numpy 1.24 removed."""
    names = {name for code in _codes(o2group.O2) for name in code.co_names}
    return "float" in names and not hasattr(o2group.np, "float")


def _codes(owner: type) -> list[Any]:
    return [method.__code__ for method in vars(owner).values() if hasattr(method, "__code__")]


def _give_float() -> None:
    o2group.np = Namespace(o2group.np, float=float)


def _answers_in_single() -> bool:
    return bool(single_precision_classes(enn, basisexpansion_blocks.BlocksBasisExpansion))


def _follow_double() -> None:
    follow_double(enn, basisexpansion_blocks.BlocksBasisExpansion)


def _leaves_indexing_open() -> bool:
    """Return whether the blocks expansion calls `torch.meshgrid` without `indexing`; torch then warns."""
    module = basisexpansion_blocks
    code = module.BlocksBasisExpansion.__init__.__code__
    open_call = "meshgrid" in code.co_names and not any(
        isinstance(constant, tuple) and "indexing" in constant for constant in code.co_consts
    )
    return open_call and module.torch.meshgrid is torch.meshgrid


def _say_indexing() -> None:
    basisexpansion_blocks.torch = Namespace(basisexpansion_blocks.torch, meshgrid=_meshgrid)


def _meshgrid(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return `torch.meshgrid` of the arguments with torch's default indexing."""
    return torch.meshgrid(tensors, indexing="ij")


MENDS = (
    Mend("uint8 masks: 1×1 R2Conv from or to trivial fields", _uses_uint8_masks, _make_masks_boolean),
    Mend("ndarray.tostring: R2Conv of D_N, flips, SO(2) and O(2)", _calls_tostring, _hash_bytes_instead),
    Mend("np.array(copy=False): R2Conv of D4 and D8", _forbids_copies, _allow_copies),
    Mend("np.float: induced representations of O(2)", _lacks_float, _give_float),
    Mend("float32 outputs of float64 fields", _answers_in_single, _follow_double),
    Mend("meshgrid without indexing: mixed field types", _leaves_indexing_open, _say_indexing),
    Mend(
        "views of einsums: GNormBatchNorm of regular fields",
        partial(views_einsums, gnorm),
        partial(lay_out_einsums, gnorm),
    ),
)
