"""Replacements of AIMET's cross-layer scaling while the hooks are installed.

Each function takes AIMET's original and returns its replacement; `hooks.py` draws the sequence of the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from aimet_torch.utils import create_rand_tensors_given_shapes, get_device

from eq_aimet.aimet.equalization.active_run import (
    ACTIVE_RUN,
    Run,
    Settings,
    current_settings,
    running,
    with_settings,
)
from eq_aimet.aimet.equalization.block_scaling import (
    BlockClsImpl,
    ClsSet,
    check_cls_set,
    cls_set_blocks,
    convert_layer_group,
)
from eq_aimet.aimet.equalization.cls_sets import have_relu_between, layers_in_a_row
from eq_aimet.aimet.equalization.recorder import ScaledSet, output_ranges
from eq_aimet.aimet.equalization.region_scaling import scale_regions
from eq_aimet.aimet.equalization.regions import find_joints
from eq_aimet.aimet.output_statistics import forget_outdated, note_weights, scale_statistics
from eq_aimet.plugins import tell_plugins

__all__ = [
    "converting",
    "finding_layers",
    "finding_relus",
    "scaling_model",
    "scaling_one_set",
    "scaling_sets",
    "searching",
]


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
    """Return the scaling of a model as one run that AIMET's other functions can look up."""

    @with_settings(original)
    def scale_model(
        settings: Settings, model: torch.nn.Module, input_shapes: Any = None, dummy_input: Any = None
    ) -> list[Any]:
        with running(model):
            return original(model, input_shapes, dummy_input=dummy_input)

    return staticmethod(scale_model)


def searching(original: Callable[..., Any]) -> Any:
    """Return the start of AIMET's search, which needs no graph of a model that was looked at."""

    @with_settings(original)
    def initialize(
        settings: Settings,
        self: Any,
        model: torch.nn.Module,
        input_shapes: Any,
        dummy_input: Any = None,
    ) -> None:
        run = ACTIVE_RUN.get()
        if run is not None and run.model is model:
            # Here AIMET has put model and input on one device.
            if dummy_input is None:
                dummy_input = create_rand_tensors_given_shapes(input_shapes, get_device(model))
            run.look_at(dummy_input)
            if run.trace is not None:
                return
        original(self, model, input_shapes, dummy_input=dummy_input)

    return initialize


def finding_layers(original: Callable[..., Any]) -> Any:
    """Return the search for layers in a row, by the run's own forward pass."""

    @with_settings(original)
    def find_layer_groups_to_scale(settings: Settings, self: Any) -> list[list[Any]]:
        run = ACTIVE_RUN.get()
        if run is None or run.trace is None:
            return original(self)
        return layers_in_a_row(run.trace, run.unsafe, run.folded)

    return find_layer_groups_to_scale


def finding_relus(original: Callable[..., Any]) -> Any:
    """Return the search for ReLUs inside CLS sets, by the run's own forward pass."""

    @with_settings(original)
    def is_relu_activation_present_in_cls_sets(
        settings: Settings, self: Any, cls_sets: list[ClsSet]
    ) -> list[Any]:
        run = ACTIVE_RUN.get()
        if run is None or run.trace is None:
            return original(self, cls_sets)
        return have_relu_between(run.trace, cls_sets, run.folded)

    return is_relu_activation_present_in_cls_sets


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
    """Let plugins change the list of CLS sets in place, as AIMET goes on with it; then scale the regions."""
    found = list(cls_sets)
    known: list[Any] = list(found)
    for plugin in tell_plugins("eq_aimet_cls_sets", model=run.model, cls_sets=cls_sets):
        for cls_set in cls_sets:
            # By identity, because the objects that a plugin puts into the list may not be comparable.
            if not any(cls_set is one for one in known):
                check_cls_set(cls_set, run.model, run.unsafe, plugin)
                known.append(cls_set)
                if settings.recorder is not None and cls_set not in found:
                    settings.recorder.added[cls_set] = plugin
    if settings.recorder is not None:
        settings.recorder.dropped += [cls_set for cls_set in found if cls_set not in cls_sets]
        settings.recorder.ranges_before |= {layer: output_ranges(layer) for layer in run.layers}
    if run.trace is not None:
        # Regions come first, so that AIMET's sets end with equal ranges.
        held = {layer for cls_set in [*found, *cls_sets] for layer in cls_set[:-1]}
        joints = find_joints(run.trace, held, run.unsafe, run.folded)
        regions = scale_regions(joints)
        if settings.recorder is not None:
            settings.recorder.unsafe = run.unsafe
            settings.recorder.joints, settings.recorder.regions = joints, regions
