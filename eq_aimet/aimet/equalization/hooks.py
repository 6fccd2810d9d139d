"""AIMET's own cross-layer equalization made aware of rotation blocks, by patches that can be undone.

While the hooks are installed, `equalize_model`, `equalize_bn_folded_model`, `CrossLayerScaling.scale_model`
and `HighBiasFold.bias_fold` respect blocks. Models without blocks take AIMET's own path, to the last bit. The
patches are on AIMET's classes and so hold for all threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from aimet_torch import cross_layer_equalization as cle
from aimet_torch.batch_norm_fold import BatchNormFold

from eq_aimet.aimet.equalization.block_scaling import (
    BlockClsImpl,
    ClsSet,
    check_cls_set,
    cls_set_blocks,
    convert_layer_group,
)
from eq_aimet.aimet.equalization.high_bias_fold import check_mode, fold_pair, has_tied_bias, tie_bias
from eq_aimet.aimet.equalization.recorder import Fold, Recorder, ScaledSet, output_ranges
from eq_aimet.aimet.equalization.region_scaling import scale_regions
from eq_aimet.aimet.equalization.regions import find_joints
from eq_aimet.aimet.equalization.unsafe_layers import output_modules, unsafe_cls_sets, unsafe_layers
from eq_aimet.aimet.output_statistics import (
    forget_outdated,
    note_weights,
    output_statistics,
    record_statistics,
    scale_statistics,
    shift_statistics,
)
from eq_aimet.plugins import layer_blocks, plugin_manager
from eq_aimet.symmetry import is_layer

__all__ = ["EquivariantHooks", "equivariant_hooks"]

_ABSENT = object()


@dataclass(frozen=True)
class _Undo:
    """Puts one attribute back as it was."""

    owner: Any
    name: str
    former: Any

    def __call__(self) -> None:
        if self.former is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.former)


def _patch(owner: Any, name: str, value: Any) -> _Undo:
    # The raw entry of __dict__: getattr unwraps a staticmethod, and the same object could not be put back.
    undo = _Undo(owner, name, vars(owner).get(name, _ABSENT))
    setattr(owner, name, value)
    return undo


@dataclass
class _Run:
    """One call of AIMET's `scale_model`.

    Attributes:
        model: The model that is scaled.
        search: AIMET's search of its graph.
        layers: Its convolutions and linear layers in the order in which they ran.
        has_blocks: Whether one of them carries rotation blocks. What follows is only known if so.
        outputs: The modules whose output the model returns.
        unsafe: The layers that must not be scaled, each with the reason.
    """

    model: torch.nn.Module
    search: Any = None
    layers: tuple[Any, ...] = ()
    has_blocks: bool = False
    outputs: set[torch.nn.Module] = field(default_factory=set)
    unsafe: dict[torch.nn.Module, str] = field(default_factory=dict)

    def look_at(self, search: Any, dummy_input: Any) -> None:
        """Note what the scaling asks for, once AIMET has built its graph; works in place."""
        modules = [operation.get_module() for operation in search._connected_graph.ordered_ops]
        self.search = search
        self.layers = tuple(
            dict.fromkeys(module for module in modules if module is not None and is_layer(module))
        )
        self.has_blocks = any(layer_blocks(layer) is not None for layer in self.layers)
        if self.has_blocks:
            self.outputs = output_modules(self.model, dummy_input)
            self.unsafe = unsafe_layers(self.model, search)


_active: list[EquivariantHooks] = []
_undos: list[_Undo] = []
_runs: list[_Run] = []
# Batch norms that were folded into the layer after them: their β and γ say nothing about that layer's output.
_norms_before: WeakSet[torch.nn.Module] = WeakSet()


class EquivariantHooks:
    """The hooks of `equivariant_hooks`: a context manager, and `install()` and `remove()` for scripts."""

    def __init__(self, high_bias_fold: str = "unpadded", recorder: Recorder | None = None) -> None:
        self.high_bias_fold = check_mode(high_bias_fold)
        self.recorder = recorder

    def install(self) -> None:
        """Install the hooks in AIMET; without effect if they are installed already."""
        if self not in _active:
            _push(self)

    def remove(self) -> None:
        """Take the hooks out of AIMET; without effect if they are not installed."""
        while self in _active:
            _pop(self)

    def __enter__(self) -> EquivariantHooks:
        _push(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self in _active:
            _pop(self)


def equivariant_hooks(*, high_bias_fold: str = "unpadded") -> EquivariantHooks:
    """Return hooks with which AIMET's cross-layer equalization respects rotation blocks.

    Args:
        high_bias_fold: `"unpadded"` absorbs only where the next layer has no zero padding (exact there, up to
            the 3σ assumption), `"all"` does as AIMET does, `"off"` absorbs nowhere. It has an effect only on
            models with blocks.

    Returns:
        A context manager that can also be installed by `install()` and removed by `remove()`. It can be
        nested; the innermost one's settings hold. On leaving, by an exception too, AIMET is as it was.

    Raises:
        InvalidArgumentError: If `high_bias_fold` is none of the three.

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


def _push(hooks: EquivariantHooks) -> None:
    if not _active:
        _install_patches()
    _active.append(hooks)


def _pop(hooks: EquivariantHooks) -> None:
    last = len(_active) - 1 - _active[::-1].index(hooks)
    del _active[last]
    if not _active:
        while _undos:
            _undos.pop()()


def _install_patches() -> None:
    for owner, name, patch in (
        (cle, "PythonClsImpl", lambda original: BlockClsImpl),
        (cle.GraphSearchUtils, "convert_layer_group_to_cls_sets", _converting),
        (cle.GraphSearchUtils, "__init__", _searching),
        (cle.CrossLayerScaling, "scale_model", _scaling_model),
        (cle.CrossLayerScaling, "scale_cls_sets", _scaling_sets),
        (cle.HighBiasFold, "bias_fold", _folding_bias),
        (cle.PythonHbfImpl, "bias_fold", _folding_pair),
        (BatchNormFold, "_fold_given_batch_norms", _folding_norms),
        (BatchNormFold, "convert_batchnorm_parameters", _converting_norm),
    ):
        _undos.append(_patch(owner, name, patch(getattr(owner, name))))


def _recorder() -> Recorder | None:
    return _active[-1].recorder


def _converting(original: Callable[..., Any]) -> Any:
    return staticmethod(lambda layer_group: convert_layer_group(layer_group, original))


def _scaling_model(original: Callable[..., Any]) -> Any:
    def scale_model(model: torch.nn.Module, input_shapes: Any = None, dummy_input: Any = None) -> list[Any]:
        _runs.append(_Run(model))
        try:
            return original(model, input_shapes, dummy_input=dummy_input)
        finally:
            _runs.pop()

    return staticmethod(scale_model)


def _searching(original: Callable[..., Any]) -> Any:
    def initialize(self: Any, model: torch.nn.Module, input_shapes: Any, dummy_input: Any = None) -> None:
        original(self, model, input_shapes, dummy_input=dummy_input)
        if _runs:
            # Here AIMET has put model and input on one device.
            _runs[-1].look_at(self, dummy_input)

    return initialize


def _scaling_sets(original: Callable[..., Any]) -> Any:
    def scale_cls_sets(self: Any, cls_sets: list[ClsSet]) -> list[Any]:
        recorder = _recorder()
        layers = _runs[-1].layers if _runs else tuple(layer for cls_set in cls_sets for layer in cls_set)
        forget_outdated(layers)
        if _runs:
            # AIMET goes on with this very list, so it is changed in place.
            dropped = _change_cls_sets(_runs[-1], cls_sets)
            if recorder is not None:
                recorder.search = _runs[-1].search
                recorder.dropped += dropped
                recorder.ranges_before |= {layer: output_ranges(layer) for layer in _runs[-1].layers}
            if _runs[-1].has_blocks:
                # First, so that AIMET's sets are left with equal ranges.
                _scale_regions(_runs[-1], [*cls_sets, *(cls_set for cls_set, _ in dropped)])
        all_scales = original(self, cls_sets)
        for cls_set, scales in zip(cls_sets, all_scales, strict=True):
            joints = scales if isinstance(scales, tuple) else (scales,)
            for layer, divisors in zip(cls_set, joints, strict=False):
                scale_statistics(layer, divisors)
            if recorder is not None:
                recorder.scaled.append(
                    ScaledSet(
                        cls_set, cls_set_blocks(cls_set), tuple(torch.from_numpy(joint) for joint in joints)
                    )
                )
        note_weights(layers)
        return all_scales

    return scale_cls_sets


def _scale_regions(run: _Run, cls_sets: list[ClsSet]) -> None:
    """Scale, in place, what AIMET's CLS sets do not reach."""
    held = {layer for cls_set in cls_sets for layer in cls_set[:-1]}
    joints = find_joints(run.search._connected_graph, run.outputs, held, run.unsafe)
    regions = scale_regions(joints)
    recorder = _recorder()
    if recorder is not None:
        recorder.unsafe = run.unsafe
        recorder.joints, recorder.regions = joints, regions


def _change_cls_sets(run: _Run, cls_sets: list[ClsSet]) -> list[tuple[ClsSet, str]]:
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


def _folding_norms(original: Callable[..., Any]) -> Any:
    def _fold_given_batch_norms(
        cls: type, model: torch.nn.Module, conv_bn_pairs: list[Any], bn_conv_pairs: list[Any]
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
        recorder = _recorder()
        if recorder is not None:
            recorder.folds += [Fold(layer, norm, follows=True) for layer, norm in conv_bn_pairs]
            recorder.folds += [Fold(layer, norm, follows=False) for norm, layer in bn_conv_pairs]

    return classmethod(_fold_given_batch_norms)


def _converting_norm(original: Callable[..., Any]) -> Any:
    def convert_batchnorm_parameters(model: torch.nn.Module, bn: torch.nn.Module) -> None:
        # What its γ and β said is lost once AIMET has written the running statistics into them.
        former = output_statistics(bn)
        original(model, bn)
        if former is not None:
            record_statistics(bn, former)

    return staticmethod(convert_batchnorm_parameters)


def _folding_pair(original: Callable[..., Any]) -> Any:
    def bias_fold(self: Any, cls_pair_info: Any, bn_layers: dict[torch.nn.Module, torch.nn.Module]) -> None:
        before = cls_pair_info.layer1.bias.detach().clone()
        original(self, cls_pair_info, bn_layers)
        shift_statistics(cls_pair_info.layer1, (before - cls_pair_info.layer1.bias.detach()).cpu())

    return bias_fold


def _folding_bias(original: Callable[..., Any]) -> Any:
    def bias_fold(
        cls: type, cls_set_info_list: list[Any], bn_layers: dict[torch.nn.Module, torch.nn.Module]
    ) -> None:
        pairs = [pair for info in cls_set_info_list for pair in info.cls_pair_info_list]
        if all(layer_blocks(layer) is None for pair in pairs for layer in (pair.layer1, pair.layer2)):
            original(cls_set_info_list, bn_layers)
            return
        hooks = _active[-1]
        for pair in pairs:
            norm = bn_layers.get(pair.layer1)
            absorption = fold_pair(pair, norm, hooks.high_bias_fold, norm_follows=norm not in _norms_before)
            if hooks.recorder is not None:
                hooks.recorder.absorptions.append(absorption)

    return classmethod(bias_fold)
