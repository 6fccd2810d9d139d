"""Cross-layer equalization of equivariant networks: AIMET's own, with one scale per rotation block."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from aimet_torch.cross_layer_equalization import equalize_model

from eq_aimet.aimet.equalization.active_run import ACTIVE_RUN, AIMET_LOCK, Run
from eq_aimet.aimet.equalization.aimet_call import traceable_call, without_compilation
from eq_aimet.aimet.equalization.argument_checks import check_model, make_inputs, refuse_input
from eq_aimet.aimet.equalization.function_check import FunctionChangedError, FunctionCheck
from eq_aimet.aimet.equalization.high_bias_fold import check_mode
from eq_aimet.aimet.equalization.hooks import EquivariantHooks
from eq_aimet.aimet.equalization.left_out_reasons import scaled_with
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.equalization.report import EqualizationReport
from eq_aimet.aimet.equalization.report_assembly import make_report
from eq_aimet.errors import EqAimetError, EqualizationError, ForwardError
from eq_aimet.plugins import tell_plugins
from eq_aimet.snapshot import Snapshot
from eq_aimet.symmetry.calling import tensors_in

__all__ = ["equalize_equivariant"]


def equalize_equivariant(
    model: torch.nn.Module,
    input_shapes: Any = None,
    dummy_input: Any = None,
    *,
    high_bias_fold: str = "unpadded",
) -> EqualizationReport:
    """Equalize a plain model with rotation blocks in place, and return a report on each layer.

    Runs AIMET's `equalize_model` (batch-norm folding, cross-layer scaling, high-bias fold) with
    `equivariant_hooks` installed. The scales are constant on each block, so the model stays as equivariant as
    it was (arXiv 2004.09691, section 4.1). If an error occurs, the model stays unchanged.

    Args:
        model: A model from `export_model`, or a model whose layers were tagged with `tag_blocks`. Batch norms
            are folded with their running statistics, also if the model is in train mode.
        input_shapes: Shape of the input, or a list of shapes; used if there is no `dummy_input`.
        dummy_input: The input of one forward pass: a tensor; a tuple or list of positional inputs; or a
            dictionary of inputs by name. The values matter only in the comparison of the outputs before and
            after. If all values are equal or a value is not finite, random numbers replace the input, because
            such an input would not show a change.
        high_bias_fold: `"unpadded"` absorbs bias only if the next layer has no zero padding (exact up to the
            3σ assumption), `"all"` absorbs bias wherever AIMET does, `"off"` absorbs no bias.

    Raises:
        InvalidArgumentError: If an argument is of the wrong kind, or the model does not take the input.
        ForwardError: If a line of the model's own code fails, or the model returns no tensor.
        EqualizationError: If the model is not plain, carries no blocks or blocks that do not fit, or has
            weights that are not finite.
        PluginError: If a plugin fails, or returns a value that its hook does not allow.

    Example:
        >>> import torch
        >>> from eq_aimet import equalize_equivariant, tag_blocks
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3),
        ...     torch.nn.ReLU(),
        ...     torch.nn.Conv2d(8, 8, 3, groups=2),
        ...     torch.nn.ReLU(),
        ...     torch.nn.Conv2d(8, 2, 1),
        ... )
        >>> handles = tag_blocks(model[0], 1, 4), tag_blocks(model[2], 4), tag_blocks(model[4], 4, 1)
        >>> report = equalize_equivariant(model, dummy_input=torch.randn(1, 3, 9, 9))
        >>> report.cls_sets[0].layers
        ('0', '2', '4')
        >>> print(report.summary)
        1 triplet, 0 pairs and 0 regions equalized; 0 of 3 layers left out; ...
    """
    check_mode(high_bias_fold)
    core = _core_of(model)
    check_model(core)
    inputs = make_inputs(core, input_shapes, dummy_input)
    with AIMET_LOCK:
        snapshot = Snapshot(core)
        try:
            with without_compilation(core):
                recorder = _equalize(core, inputs, high_bias_fold, by_shape=dummy_input is None)
            snapshot.restore_modes(core)
            report = make_report(recorder, snapshot.names, high_bias_fold)
            for _ in tell_plugins("eq_aimet_equalized", model=model, report=report):
                pass
        except _FaultyError as fault:
            snapshot.restore()
            raise fault.explain(snapshot.names) from None
        except BaseException:
            snapshot.restore()
            raise
    return report


def _core_of(model: Any) -> Any:
    """Return the model inside of `torch.nn.DataParallel` and `torch.compile`."""
    while True:
        name = "module" if isinstance(model, torch.nn.DataParallel) else "_orig_mod"
        inner = getattr(model, name, None)
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner


@dataclass
class _FaultyError(Exception):
    """The function of the model changed during equalization."""

    error: FunctionChangedError
    check: FunctionCheck
    recorder: Recorder

    def explain(self, names: dict[torch.nn.Module, str]) -> EqualizationError:
        folds = {fold.layer: fold.norm for fold in self.recorder.folds if fold.follows}
        partners = partial(scaled_with, self.recorder, names)
        plugins = dict.fromkeys(self.recorder.added.values())
        return self.check.explain(self.error, folds, names, partners, plugins)


def _equalize(model: torch.nn.Module, inputs: Any, high_bias_fold: str, *, by_shape: bool) -> Recorder:
    """Equalize a model in place; return the record of the changes."""
    run, recorder = Run(model), Recorder()
    try:
        run.look_at(inputs)
    except EqAimetError:
        raise
    except Exception as error:
        raise refuse_input(error, model, inputs, by_shape=by_shape) from error
    assert run.trace is not None
    if not tensors_in(run.trace.output):
        raise ForwardError(
            f"`forward` of {type(model).__name__} returned a {type(run.trace.output).__name__} without a "
            "tensor; expected a tensor, or a tuple, list or dictionary of tensors."
        )
    with traceable_call(model, inputs, run.trace.output) as tensors:
        run.check = FunctionCheck(model, tensors)
        token = ACTIVE_RUN.set(run)
        try:
            with EquivariantHooks(high_bias_fold, recorder):
                equalize_model(model, dummy_input=tensors)
        except FunctionChangedError as error:
            raise _FaultyError(error, run.check, recorder) from None
        finally:
            ACTIVE_RUN.reset(token)
    return recorder
