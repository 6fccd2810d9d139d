"""Replacements of AIMET's folds of batch norms and of high biases while the hooks are installed.

Each function takes AIMET's original and returns its replacement; `hooks.py` draws the sequence of the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch

from eq_aimet.aimet.equalization.active_run import ACTIVE_RUN, Settings, running, with_settings
from eq_aimet.aimet.equalization.batch_norm_folds import drop_faulty_folds, reason_not_folded
from eq_aimet.aimet.equalization.high_bias_fold import fold_pair, has_tied_bias, tie_bias
from eq_aimet.aimet.equalization.recorder import Fold
from eq_aimet.aimet.output_statistics import (
    note_weights,
    output_statistics,
    record_statistics,
    shift_statistics,
)
from eq_aimet.plugins import layer_blocks

__all__ = ["converting_norm", "folding_all_norms", "folding_bias", "folding_norms", "folding_pair"]

# Batch norms that were folded into the layer after them: their β and γ say nothing about that layer's output.
_norms_before: WeakSet[torch.nn.Module] = WeakSet()


def folding_all_norms(original: Callable[..., Any]) -> Any:
    """Return the batch-norm folding of `equalize_model`, before which a run looks at the model."""

    @with_settings(original)
    def fold_all_batch_norms(
        settings: Settings, model: torch.nn.Module, input_shapes: Any, dummy_input: Any = None
    ) -> Any:
        with running(model) as run:
            if dummy_input is not None:
                run.look_at(dummy_input)
            return original(model, input_shapes, dummy_input=dummy_input)

    return fold_all_batch_norms


def folding_norms(original: Callable[..., Any]) -> Any:
    """Return the batch-norm fold that keeps biases tied and notes the output statistics of each norm."""

    @with_settings(original)
    def fold_given(
        settings: Settings, model: torch.nn.Module, conv_bn_pairs: list[Any], bn_conv_pairs: list[Any]
    ) -> None:
        run = ACTIVE_RUN.get()
        trace = None if run is None else run.trace
        faults = {} if trace is None else drop_faulty_folds(trace, conv_bn_pairs, bn_conv_pairs)
        tied = [layer for _, layer in bn_conv_pairs if has_tied_bias(layer)]
        original(model, conv_bn_pairs, bn_conv_pairs)
        for layer in tied:
            tie_bias(layer)
        left = set(model.modules())  # AIMET does not move a norm that it can't fold
        for layer, norm in conv_bn_pairs:
            if norm not in left:
                record_statistics(layer, output_statistics(norm))
        note_weights(layer for _, layer in bn_conv_pairs)
        _norms_before.difference_update(norm for _, norm in conv_bn_pairs)
        _norms_before.update(norm for norm, _ in bn_conv_pairs)
        if run is not None:
            norms = [norm for _, norm in conv_bn_pairs] + [norm for norm, _ in bn_conv_pairs]
            run.folded |= set(norms) - left
        if settings.recorder is not None:
            stay = [module for module in left if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
            if trace is not None:
                settings.recorder.not_folded |= {
                    norm: reason_not_folded(trace, norm) for norm in stay
                } | faults
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
        run = ACTIVE_RUN.get()
        if run is not None and run.check is not None:
            run.check()
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
