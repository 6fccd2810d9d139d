"""Cross-layer equalization of equivariant networks: AIMET's own, with one scale per rotation block."""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.cross_layer_equalization import equalize_model

from eq_aimet.aimet.equalization.argument_checks import check_folds, check_input, check_model
from eq_aimet.aimet.equalization.high_bias_fold import check_mode
from eq_aimet.aimet.equalization.hooks import EquivariantHooks
from eq_aimet.aimet.equalization.recorder import Recorder
from eq_aimet.aimet.equalization.report import EqualizationReport, make_report
from eq_aimet.aimet.snapshot import Snapshot
from eq_aimet.plugins import plugin_manager

__all__ = ["equalize_equivariant"]


def equalize_equivariant(
    model: torch.nn.Module,
    input_shapes: Any = None,
    dummy_input: Any = None,
    *,
    high_bias_fold: str = "unpadded",
) -> EqualizationReport:
    """Equalize a plain model with rotation blocks in place, and return what was done to each convolution.

    Runs AIMET's `equalize_model` (batch-norm folding, cross-layer scaling, high-bias fold) with
    `equivariant_hooks` installed. The scales are constant on each block, so the model stays as equivariant as
    it was (arXiv 2004.09691, section 4.1). If anything fails, the model is as it was before.

    Args:
        model: A model out of `export_model`, or one whose layers were tagged with `tag_blocks`. In train
            mode, too, batch norms are folded with their running statistics.
        input_shapes: Shape of the input, or a list of shapes; used if there is no `dummy_input`.
        dummy_input: An input, or a tuple of inputs, to trace the model with.
        high_bias_fold: `"unpadded"` absorbs only where the next layer has no zero padding (exact there, up to
            the 3σ assumption), `"all"` does as AIMET does, `"off"` absorbs nowhere.

    Raises:
        InvalidArgumentError: If an argument is of the wrong kind, or the model does not take the input.
        EqualizationError: If the model is not plain, carries no blocks or blocks that do not fit, or has
            weights that are not finite.

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
    core = model.module if isinstance(model, torch.nn.DataParallel) else model
    check_model(core)
    snapshot = Snapshot(core)
    try:
        dummy_input, runs = check_input(core, input_shapes, dummy_input)
        recorder = Recorder()
        with EquivariantHooks(high_bias_fold, recorder):
            equalize_model(core, dummy_input=dummy_input)
        check_folds(recorder.folds, runs, snapshot.names)
        snapshot.restore_modes(core)
        report = make_report(recorder, snapshot.names, high_bias_fold)
        plugin_manager().hook.eq_aimet_equalized(model=model, report=report)
    except BaseException:
        snapshot.restore()
        raise
    return report
