"""Mends of escnn 1.0.11 on current torch, numpy and scikit-learn.

One of its lines fails with scikit-learn from 1.2 on, one with current torch, and some modules turn float64
into float32. A mend changes names inside the one module of escnn that needs it, and no number in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from escnn import nn as enn
from escnn.group import _numerical
from escnn.nn.modules.batchnormalization import gnorm

from eq_aimet.adapters.mending import Mend, apply_mends, lay_out_einsums, views_einsums
from eq_aimet.adapters.precision import follow_double, single_precision_classes

__all__ = ["MENDS", "apply"]


def apply(mends: tuple[Mend, ...] | None = None) -> tuple[str, ...]:
    """Mend escnn in place where it needs it, and return the names of the mends that were needed.

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
        _numerical.null(np.matrix(np.eye(1)), use_sparse=False)
    except TypeError:
        return True
    return False


def _take_arrays() -> None:
    _numerical.randomized_svd = partial(_decompose, _numerical.randomized_svd)


def _decompose(randomized_svd: Any, matrix: Any, **options: Any) -> Any:
    """Return scikit-learn's decomposition of a matrix, as an array of the same numbers."""
    return randomized_svd(np.asarray(matrix), **options)


MENDS = (
    Mend("np.matrix in scikit-learn: R2Conv of D_N and O(2)", _refuses_matrices, _take_arrays),
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
