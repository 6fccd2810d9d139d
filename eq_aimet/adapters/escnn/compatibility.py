"""Mends of escnn 1.0.11 on current torch, numpy and scikit-learn.

escnn passes a `numpy.matrix` to scikit-learn, and scikit-learn refuses it from version 1.2 on. escnn also
takes a view of an einsum, and current torch refuses this view. Spaces of one point have no hash. Some
modules turn float64 into float32. A mend changes names only inside the escnn module that needs it, and it
changes no result in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from escnn import nn as enn
from escnn.group import _numerical, cyclic_group
from escnn.gspaces import GSpace0D, no_base_space
from escnn.nn.modules.batchnormalization import gnorm

from eq_aimet.adapters.mending.mends import Mend, apply_mends, lay_out_einsums, views_einsums
from eq_aimet.adapters.mending.precision import follow_double, single_precision_classes

__all__ = ["MENDS", "apply"]


def apply(mends: tuple[Mend, ...] | None = None) -> tuple[str, ...]:
    """Mend escnn in place where a probe finds a fault, and return the names of the applied mends.

    Args:
        mends: The mends to try, all of `MENDS` by default.

    Example:
        >>> apply()  # importing the adapter has done it: nothing is left to mend
        ()
    """
    return apply_mends("escnn", MENDS if mends is None else mends)


def _refuses_matrices() -> bool:
    """Return whether the null space of a `numpy.matrix`, which escnn gives to scikit-learn, fails."""
    try:
        _numerical.null(np.eye(1).view(np.matrix), use_sparse=False)
    except TypeError:
        return True
    return False


def _take_arrays() -> None:
    _numerical.randomized_svd = partial(_decompose, _numerical.randomized_svd)


def _decompose(randomized_svd: Any, matrix: Any, **options: Any) -> Any:
    """Return scikit-learn's decomposition of a matrix, as an array of the same numbers."""
    return randomized_svd(np.asarray(matrix), **options)


def _lacks_hash() -> bool:
    """Return whether hashing a space of one point fails; the space hashes its group, which has no hash."""
    try:
        hash(no_base_space(cyclic_group(1)))
    except TypeError:
        return True
    return False


def _hash_by_name() -> None:
    GSpace0D.__hash__ = _hash_space


def _hash_space(space: GSpace0D) -> int:
    """Return a hash that is the same for equal spaces, like the hash of the spaces of the plane."""
    return hash(space.name)


MENDS = (
    Mend("np.matrix in scikit-learn: R2Conv of D_N and O(2)", _refuses_matrices, _take_arrays),
    Mend("no hash: types on one point", _lacks_hash, _hash_by_name),
    Mend(
        "float32 outputs of float64 fields",
        lambda: bool(single_precision_classes(enn)),
        partial(follow_double, enn),
    ),
    Mend(
        "views of einsums: GNormBatchNorm of regular fields",
        partial(views_einsums, gnorm),
        partial(lay_out_einsums, gnorm),
    ),
)
