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
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from eq_aimet.aimet.equalization.active_run import AIMET_LOCK, Settings, innermost, installed
from eq_aimet.aimet.equalization.high_bias_fold import check_mode
from eq_aimet.aimet.equalization.interception import changes_of_aimet
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.patching import patch_all

__all__ = ["EQUALIZATION", "EquivariantHooks", "Installation"]

Change = tuple[Any, str, Any]


class Installation:
    """Patches on AIMET's classes, which stay there as long as somebody needs them.

    Args:
        changes: Returns the changes: owner, name and new value of each attribute.
    """

    def __init__(self, changes: Callable[[], list[Change]]) -> None:
        self._changes = changes
        self._users = 0
        self._undo: Callable[[], None] | None = None

    def enter(self) -> None:
        """Install the patches for one more user."""
        with AIMET_LOCK:
            if self._users == 0:
                self._undo = patch_all(self._changes())
            self._users += 1

    def leave(self) -> None:
        """Take the patches back if this was the last user."""
        with AIMET_LOCK:
            self._users -= 1
            if self._users == 0 and self._undo is not None:
                self._undo()


EQUALIZATION = Installation(changes_of_aimet)


class EquivariantHooks:
    """The hooks of `equivariant_hooks`: a context manager, and `install()` and `remove()` for scripts."""

    def __init__(
        self,
        high_bias_fold: str = "unpadded",
        recorder: Recorder | None = None,
        installations: tuple[Installation, ...] = (EQUALIZATION,),
    ) -> None:
        self._settings = Settings(check_mode(high_bias_fold), recorder)
        self._installations = installations

    def _enter(self) -> None:
        with ExitStack() as undos:
            for installation in self._installations:
                installation.enter()
                undos.callback(installation.leave)
            undos.pop_all()

    def _leave(self) -> None:
        for installation in reversed(self._installations):
            installation.leave()

    def install(self) -> None:
        """Install the hooks in AIMET for all threads; without effect if they are installed already."""
        with AIMET_LOCK:
            if self._settings not in installed:
                self._enter()
                installed.append(self._settings)

    def remove(self) -> None:
        """Take back what `install()` did; without effect if the hooks are not installed."""
        with AIMET_LOCK:
            if self._settings in installed:
                installed.remove(self._settings)
                self._leave()

    def __enter__(self) -> EquivariantHooks:
        self._enter()
        innermost.set((*innermost.get(), self._settings))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        settings = list(innermost.get())
        if self._settings in settings:
            del settings[len(settings) - 1 - settings[::-1].index(self._settings)]
            innermost.set(tuple(settings))
        self._leave()
