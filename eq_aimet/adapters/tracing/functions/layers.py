"""Layers and norms that the model calls as functions on its own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from eq_aimet.adapters.tracing.functions.operands import Activation, Converter

__all__ = ["LAYERS"]

Weight = Any  # a tensor if it is a constant, else an `Activation`


def _linear(input: Activation, weight: Weight, bias: Weight = None) -> nn.Module | None:
    if not _are_constants(input, weight, bias):
        return None
    outputs, inputs = weight.shape
    return _with_weights(nn.Linear(inputs, outputs, bias is not None, device="meta"), weight, bias)


def _convolution(
    input: Activation,
    weight: Weight,
    bias: Weight = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> nn.Module | None:
    if not _are_constants(input, weight, bias) or input.rank != 4:
        return None
    outputs, inputs, *kernel = weight.shape
    layer = nn.Conv2d(
        inputs * groups,
        outputs,
        (kernel[0], kernel[1]),
        _fixed(stride),
        _fixed(padding),
        _fixed(dilation),
        groups,
        bias is not None,
        device="meta",
    )
    return _with_weights(layer, weight, bias)


def _layer_norm(
    input: Activation,
    normalized_shape: Sequence[int],
    weight: Weight = None,
    bias: Weight = None,
    eps: float = 1e-5,
) -> nn.Module | None:
    if not _are_constants(input, weight, bias):
        return None
    shape = [int(size) for size in normalized_shape]
    has_weight, has_bias = weight is not None, bias is not None
    if has_bias and not has_weight:
        return None
    layer = nn.LayerNorm(shape, eps, elementwise_affine=has_weight, bias=has_bias, device="meta")
    return _with_weights(layer, weight, bias)


def _batch_norm(
    input: Activation,
    running_mean: Weight,
    running_var: Weight,
    weight: Weight = None,
    bias: Weight = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> nn.Module | None:
    given = (running_mean, running_var, weight, bias)
    if training or input.rank != 4 or not _are_constants(input, *given) or any(v is None for v in given):
        return None
    layer = nn.BatchNorm2d(len(running_mean), eps, momentum)
    layer.running_mean, layer.running_var = running_mean.detach().clone(), running_var.detach().clone()
    return _with_weights(layer, weight, bias)


def _are_constants(input: Any, *weights: Weight) -> bool:
    return isinstance(input, Activation) and not any(isinstance(weight, Activation) for weight in weights)


def _with_weights(layer: Any, weight: torch.Tensor | None, bias: torch.Tensor | None) -> nn.Module:
    """Return `layer` with these weights; the layer shares each parameter with other modules that use it."""
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
            setattr(layer, name, parameter)
    made: nn.Module = layer
    return made


def _fixed(size: Any) -> Any:
    return tuple(size) if isinstance(size, (list, tuple)) else size


LAYERS: dict[Any, tuple[str, Converter]] = {
    F.linear: ("linear", _linear),
    **dict.fromkeys((F.conv2d, torch.conv2d), ("convolution", _convolution)),
    F.layer_norm: ("layer_norm", _layer_norm),
    F.batch_norm: ("batch_norm", _batch_norm),
}
