"""What AIMET's functions do while the hooks are installed, one function for each patched name.

Each function here takes AIMET's original and returns its replacement. Where no hooks hold in the running
thread, the replacement calls the original and does nothing else. `hooks.py` draws the sequence of the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from weakref import WeakSet

import torch
from aimet_torch import cross_layer_equalization as cle
from aimet_torch.batch_norm_fold import BatchNormFold

from eq_aimet.aimet.equalization.active_run import ACTIVE_RUN, AIMET_LOCK, Run, Settings, current_settings
from eq_aimet.aimet.equalization.block_scaling import (
    BlockClsImpl,
    ClsSet,
    check_cls_set,
    cls_set_blocks,
    convert_layer_group,
)
from eq_aimet.aimet.equalization.high_bias_fold import fold_pair, has_tied_bias, tie_bias
from eq_aimet.aimet.equalization.recorder import Fold, ScaledSet, output_ranges
from eq_aimet.aimet.equalization.region_scaling import scale_regions
from eq_aimet.aimet.equalization.regions import find_joints
from eq_aimet.aimet.equalization.unsafe_layers import unsafe_cls_sets
from eq_aimet.aimet.output_statistics import (
    forget_outdated,
    note_weights,
    output_statistics,
    record_statistics,
    scale_statistics,
    shift_statistics,
)
from eq_aimet.plugins import layer_blocks, plugin_manager

__all__ = ["changes_of_aimet", "with_settings"]

# Batch norms that were folded into the layer after them: their β and γ say nothing about that layer's output.
_norms_before: WeakSet[torch.nn.Module] = WeakSet()


def changes_of_aimet() -> list[tuple[Any, str, Any]]:
    """Return the changes that make AIMET block-aware: owner, name and new value of each attribute."""
    patched: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
        (cle, "PythonClsImpl", scaling_one_set),
        (cle.GraphSearchUtils, "convert_layer_group_to_cls_sets", converting),
        (cle.GraphSearchUtils, "__init__", searching),
        (cle.CrossLayerScaling, "scale_model", scaling_model),
        (cle.CrossLayerScaling, "scale_cls_sets", scaling_sets),
        (cle.HighBiasFold, "bias_fold", folding_bias),
        (cle.PythonHbfImpl, "bias_fold", folding_pair),
        (BatchNormFold, "_fold_given_batch_norms", folding_norms),
        (BatchNormFold, "convert_batchnorm_parameters", converting_norm),
    )
    return [(owner, name, replace(getattr(owner, name))) for owner, name, replace in patched]


def with_settings(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator: a replacement that takes the settings first, and AIMET's original without any.

    One thread at a time runs the replacement.
    """

    def decorate(replacement: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(replacement)
        def choose(*arguments: Any, **named: Any) -> Any:
            settings = current_settings()
            if settings is None:
                return original(*arguments, **named)
            with AIMET_LOCK:
                return replacement(settings, *arguments, **named)

        return choose

    return decorate


def scaling_one_set(original: Callable[..., Any]) -> Any:
    """Return the scaling of one CLS set, block by block."""
    return lambda: original() if current_settings() is None else BlockClsImpl()


def converting(original: Callable[..., Any]) -> Any:
    """Return the pairing of consecutive layers that knows block-wise depthwise layers."""

    @with_settings(original)
    def convert_layer_group_to_cls_sets(settings: Settings, layer_group: list[Any]) -> list[ClsSet]:
        return convert_layer_group(layer_group, original)

    return staticmethod(convert_layer_group_to_cls_sets)


def scaling_model(original: Callable[..., Any]) -> Any:
    """Return the scaling of a model as one run, which AIMET's other functions are told of."""

    @with_settings(original)
    def scale_model(
        settings: Settings, model: torch.nn.Module, input_shapes: Any = None, dummy_input: Any = None
    ) -> list[Any]:
        token = ACTIVE_RUN.set(Run(model))
        try:
            return original(model, input_shapes, dummy_input=dummy_input)
        finally:
            ACTIVE_RUN.reset(token)

    return staticmethod(scale_model)


def searching(original: Callable[..., Any]) -> Any:
    """Return the search for layers to scale, which the run looks at."""

    @with_settings(original)
    def initialize(
        settings: Settings,
        self: Any,
        model: torch.nn.Module,
        input_shapes: Any,
        dummy_input: Any = None,
    ) -> None:
        original(self, model, input_shapes, dummy_input=dummy_input)
        run = ACTIVE_RUN.get()
        if run is not None:
            # Here AIMET has put model and input on one device.
            run.look_at(self, dummy_input)

    return initialize


def scaling_sets(original: Callable[..., Any]) -> Any:
    """Return the scaling of CLS sets that drops unsafe sets and scales the regions first."""

    @with_settings(original)
    def scale_cls_sets(settings: Settings, self: Any, cls_sets: list[ClsSet]) -> list[Any]:
        run = ACTIVE_RUN.get()
        layers = run.layers if run else tuple(layer for cls_set in cls_sets for layer in cls_set)
        forget_outdated(layers)
        if run is not None:
            _prepare(run, cls_sets, settings)
        all_scales = original(self, cls_sets)
        for cls_set, scales in zip(cls_sets, all_scales, strict=True):
            joints = scales if isinstance(scales, tuple) else (scales,)
            for layer, divisors in zip(cls_set, joints, strict=False):
                scale_statistics(layer, divisors)
            if settings.recorder is not None:
                scaled = ScaledSet(cls_set, cls_set_blocks(cls_set), tuple(map(torch.from_numpy, joints)))
                settings.recorder.scaled.append(scaled)
        note_weights(layers)
        return all_scales

    return scale_cls_sets


def _prepare(run: Run, cls_sets: list[ClsSet], settings: Settings) -> None:
    """Change the list of CLS sets in place, since AIMET goes on with this very list; then scale regions."""
    dropped = _change_cls_sets(run, cls_sets)
    if settings.recorder is not None:
        settings.recorder.search = run.search
        settings.recorder.dropped += dropped
        settings.recorder.ranges_before |= {layer: output_ranges(layer) for layer in run.layers}
    if run.has_blocks:
        # First, so that AIMET's sets are left with equal ranges.
        _scale_regions(run, [*cls_sets, *(cls_set for cls_set, _ in dropped)], settings)


def _scale_regions(run: Run, cls_sets: list[ClsSet], settings: Settings) -> None:
    """Scale, in place, what AIMET's CLS sets do not reach."""
    held = {layer for cls_set in cls_sets for layer in cls_set[:-1]}
    joints = find_joints(run.search._connected_graph, run.outputs, held, run.unsafe)
    regions = scale_regions(joints)
    if settings.recorder is not None:
        settings.recorder.unsafe = run.unsafe
        settings.recorder.joints, settings.recorder.regions = joints, regions


def _change_cls_sets(run: Run, cls_sets: list[ClsSet]) -> list[tuple[ClsSet, str]]:
    """Take out the sets that scaling would break, let plugins change the rest; return what is gone."""
    dropped = []
    if run.has_blocks:
        dropped = unsafe_cls_sets(run.model, run.search, cls_sets, run.outputs, run.unsafe)
        for cls_set, _ in dropped:
            cls_sets.remove(cls_set)
    found = list(cls_sets)
    plugin_manager().hook.eq_aimet_cls_sets(model=run.model, cls_sets=cls_sets)
    for cls_set in cls_sets:
        if cls_set not in found:
            check_cls_set(cls_set, run.model)
    return dropped + [(cls_set, "a plugin took it out") for cls_set in found if cls_set not in cls_sets]


def folding_norms(original: Callable[..., Any]) -> Any:
    """Return the batch-norm fold that keeps biases tied and notes what each norm tells of the outputs."""

    @with_settings(original)
    def fold_given(
        settings: Settings, model: torch.nn.Module, conv_bn_pairs: list[Any], bn_conv_pairs: list[Any]
    ) -> None:
        tied = [layer for _, layer in bn_conv_pairs if has_tied_bias(layer)]
        original(model, conv_bn_pairs, bn_conv_pairs)
        for layer in tied:
            tie_bias(layer)
        left = set(model.modules())  # AIMET leaves a norm where it is that it can't fold
        for layer, norm in conv_bn_pairs:
            if norm not in left:
                record_statistics(layer, output_statistics(norm))
        note_weights(layer for _, layer in bn_conv_pairs)
        _norms_before.difference_update(norm for _, norm in conv_bn_pairs)
        _norms_before.update(norm for norm, _ in bn_conv_pairs)
        if settings.recorder is not None:
            settings.recorder.folds += [Fold(layer, norm, follows=True) for layer, norm in conv_bn_pairs]
            settings.recorder.folds += [Fold(layer, norm, follows=False) for norm, layer in bn_conv_pairs]

    return classmethod(lambda cls, *arguments, **named: fold_given(*arguments, **named))


def converting_norm(original: Callable[..., Any]) -> Any:
    """Return the conversion of a norm that stays, after which its β and γ are still known."""

    @with_settings(original)
    def convert_batchnorm_parameters(settings: Settings, model: torch.nn.Module, bn: torch.nn.Module) -> None:
        # AIMET writes the running statistics into γ and β.
        former = output_statistics(bn)
        original(model, bn)
        if former is not None:
            record_statistics(bn, former)

    return staticmethod(convert_batchnorm_parameters)


def folding_pair(original: Callable[..., Any]) -> Any:
    """Return AIMET's high-bias fold of a pair, which the layer's statistics follow."""

    @with_settings(original)
    def bias_fold(
        settings: Settings,
        self: Any,
        cls_pair_info: Any,
        bn_layers: dict[torch.nn.Module, torch.nn.Module],
    ) -> None:
        before = cls_pair_info.layer1.bias.detach().clone()
        original(self, cls_pair_info, bn_layers)
        shift_statistics(cls_pair_info.layer1, (before - cls_pair_info.layer1.bias.detach()).cpu())

    return bias_fold


def folding_bias(original: Callable[..., Any]) -> Any:
    """Return the high-bias fold that works block by block; without blocks it is AIMET's own."""

    @with_settings(original)
    def bias_fold(
        settings: Settings, cls_set_info_list: list[Any], bn_layers: dict[torch.nn.Module, torch.nn.Module]
    ) -> None:
        pairs = [pair for info in cls_set_info_list for pair in info.cls_pair_info_list]
        if all(layer_blocks(layer) is None for pair in pairs for layer in (pair.layer1, pair.layer2)):
            original(cls_set_info_list, bn_layers)
            return
        for pair in pairs:
            norm = bn_layers.get(pair.layer1)
            follows = norm not in _norms_before
            absorption = fold_pair(pair, norm, settings.high_bias_fold, norm_follows=follows)
            if settings.recorder is not None:
                settings.recorder.absorptions.append(absorption)

    return classmethod(lambda cls, *arguments, **named: bias_fold(*arguments, **named))
