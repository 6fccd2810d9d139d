"""AIMET's own cross-layer equalization made aware of rotation blocks, by patches that can be taken back.

While the hooks are installed, AIMET calls into this package in this sequence. AIMET's functions stand on the
left; the functions on the right are in `fold_interception.py` and `scaling_interception.py`.

    equalize_model(model, …)
     ├─ fold_all_batch_norms ────────────────────────── folding_all_norms: one forward pass looks at the model
     │   ├─ BatchNormFold._fold_given_batch_norms ───── folding_norms: drops wrong folds, keeps biases tied
     │   └─ BatchNormFold.convert_batchnorm_parameters ─ converting_norm: notes β and γ of a norm that stays
     └─ equalize_bn_folded_model
         ├─ CrossLayerScaling.scale_model ───────────── scaling_model: begins and ends a run
         │   ├─ GraphSearchUtils.__init__ ───────────── searching: needs no graph of AIMET's
         │   ├─ ….find_layer_groups_to_scale ────────── finding_layers: convolutions in a row
         │   ├─ ….convert_layer_group_to_cls_sets ───── converting: pairs block-wise layers, too
         │   ├─ CrossLayerScaling.scale_cls_sets ────── scaling_sets: asks plugins, scales regions first
         │   │   └─ PythonClsImpl ───────────────────── scaling_one_set: one scale per block
         │   └─ ….is_relu_activation_present_in_cls_sets ─ finding_relus
         └─ HighBiasFold.bias_fold ──────────────────── folding_bias: checks the function, then block by block
             └─ PythonHbfImpl.bias_fold ─────────────── folding_pair: shifts the noted statistics

Models without blocks take AIMET's own path, to the last bit. The hooks of a `with` block hold in its own
thread alone, the hooks of `install()` in all threads. AIMET itself is not thread-safe, so one thread at a
time runs inside the functions above.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from aimet_torch import cross_layer_equalization as cle
from aimet_torch.batch_norm_fold import BatchNormFold

from eq_aimet.aimet.equalization.active_run import AIMET_LOCK, Settings, innermost, installed
from eq_aimet.aimet.equalization.fold_interception import (
    converting_norm,
    folding_all_norms,
    folding_bias,
    folding_norms,
    folding_pair,
)
from eq_aimet.aimet.equalization.high_bias_fold import check_mode
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.equalization.scaling_interception import (
    converting,
    finding_layers,
    finding_relus,
    scaling_model,
    scaling_one_set,
    scaling_sets,
    searching,
)
from eq_aimet.aimet.patching import patch_all

__all__ = ["EquivariantHooks", "equivariant_hooks"]


def _changes_of_aimet() -> list[tuple[Any, str, Any]]:
    """Return the changes that make AIMET block-aware: owner, name and new value of each attribute."""
    patched: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
        (cle, "PythonClsImpl", scaling_one_set),
        (cle.GraphSearchUtils, "convert_layer_group_to_cls_sets", converting),
        (cle, "fold_all_batch_norms", folding_all_norms),
        (cle.GraphSearchUtils, "__init__", searching),
        (cle.GraphSearchUtils, "find_layer_groups_to_scale", finding_layers),
        (cle.GraphSearchUtils, "is_relu_activation_present_in_cls_sets", finding_relus),
        (cle.CrossLayerScaling, "scale_model", scaling_model),
        (cle.CrossLayerScaling, "scale_cls_sets", scaling_sets),
        (cle.HighBiasFold, "bias_fold", folding_bias),
        (cle.PythonHbfImpl, "bias_fold", folding_pair),
        (BatchNormFold, "_fold_given_batch_norms", folding_norms),
        (BatchNormFold, "convert_batchnorm_parameters", converting_norm),
    )
    return [(owner, name, replace(getattr(owner, name))) for owner, name, replace in patched]


class _Installation:
    """The patches on AIMET's classes, which stay there as long as somebody needs them."""

    def __init__(self) -> None:
        self._users = 0
        self._undo: Callable[[], None] | None = None

    def enter(self) -> None:
        with AIMET_LOCK:
            if self._users == 0:
                self._undo = patch_all(_changes_of_aimet())
            self._users += 1

    def leave(self) -> None:
        with AIMET_LOCK:
            self._users -= 1
            if self._users == 0 and self._undo is not None:
                self._undo()


_installation = _Installation()


class EquivariantHooks:
    """The hooks of `equivariant_hooks`: a context manager, and `install()` and `remove()` for scripts."""

    def __init__(self, high_bias_fold: str = "unpadded", recorder: Recorder | None = None) -> None:
        self._settings = Settings(check_mode(high_bias_fold), recorder)

    def install(self) -> None:
        """Install the hooks in AIMET for all threads; without effect if they are installed already."""
        with AIMET_LOCK:
            if self._settings not in installed:
                _installation.enter()
                installed.append(self._settings)

    def remove(self) -> None:
        """Take back what `install()` did; without effect if the hooks are not installed."""
        with AIMET_LOCK:
            if self._settings in installed:
                installed.remove(self._settings)
                _installation.leave()

    def __enter__(self) -> EquivariantHooks:
        _installation.enter()
        innermost.set((*innermost.get(), self._settings))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        settings = list(innermost.get())
        if self._settings in settings:
            del settings[len(settings) - 1 - settings[::-1].index(self._settings)]
            innermost.set(tuple(settings))
        _installation.leave()


def equivariant_hooks(*, high_bias_fold: str = "unpadded") -> EquivariantHooks:
    """Return hooks with which AIMET's cross-layer equalization respects rotation blocks.

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
    return EquivariantHooks(high_bias_fold)
