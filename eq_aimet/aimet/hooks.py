"""The hooks under which AIMET's own functions keep the symmetry: equalization and rounding together.

`equalization/interception.py` and `rounding/interception.py` list the patched names and draw the calls.
"""

from __future__ import annotations

from eq_aimet.aimet.equalization.hooks import EQUALIZATION, EquivariantHooks, Installation
from eq_aimet.aimet.rounding.interception import changes_of_rounding

__all__ = ["equivariant_hooks"]

ROUNDING = Installation(changes_of_rounding)


def equivariant_hooks(*, high_bias_fold: str = "unpadded") -> EquivariantHooks:
    """Return hooks with which AIMET's own functions respect rotation blocks.

    AIMET's cross-layer equalization scales whole blocks. `Adaround.apply_adaround` learns one rounding for
    each orbit of weights, and `apply_seq_mse` searches one scale for each orbit of channels, so that the
    integers of an orbit stay equal. GPTVQ, OmniQuant, AdaScale and SpinQuant cannot be tied; inside the hooks
    they refuse a model whose weights are tied. On a model without blocks AIMET's functions give AIMET's
    results, to the last bit.

    Args:
        high_bias_fold: `"unpadded"` absorbs only where the next layer has no zero padding (exact there, up to
            the 3σ assumption), `"all"` does as AIMET does, `"off"` absorbs nowhere. It has an effect only
            on models with blocks.

    Returns:
        A context manager whose hooks hold in the thread that enters it. `install()` installs them for all
        threads until `remove()`. Hooks can be nested; the settings of the innermost `with` block hold. After
        the block, or after an exception, AIMET is as it was.

    Raises:
        InvalidArgumentError: If `high_bias_fold` is not one of the three modes.

    Example:
        >>> from aimet_torch.cross_layer_equalization import HighBiasFold
        >>> before = HighBiasFold.bias_fold
        >>> with equivariant_hooks(high_bias_fold="off"):
        ...     HighBiasFold.bias_fold == before
        False
        >>> HighBiasFold.bias_fold == before
        True
    """
    return EquivariantHooks(high_bias_fold, installations=(EQUALIZATION, ROUNDING))
