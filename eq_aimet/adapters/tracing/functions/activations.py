"""Activation functions, which act on each number, and softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from eq_aimet.adapters.tracing.functions.operands import Activation, Converter

__all__ = ["ACTIVATIONS"]


def _of(module: type[nn.Module]) -> Converter:
    """Return the converter of a function without options to `module`."""

    def convert(input: Activation, inplace: bool = False) -> nn.Module:
        return module()

    return convert


def _leaky_relu(input: Activation, negative_slope: float = 0.01, inplace: bool = False) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


def _elu(input: Activation, alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.ELU(alpha)


def _celu(input: Activation, alpha: float = 1.0, inplace: bool = False) -> nn.Module:
    return nn.CELU(alpha)


def _gelu(input: Activation, approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


def _hardtanh(
    input: Activation, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> nn.Module:
    return nn.Hardtanh(min_val, max_val)


def _softplus(input: Activation, beta: float = 1, threshold: float = 20) -> nn.Module:
    return nn.Softplus(beta, threshold)


def _clamp(input: Activation, min: Any = None, max: Any = None) -> nn.Module | None:
    if isinstance(min, (int, float)) and min == 0 and max is None:
        return nn.ReLU()
    if isinstance(min, (int, float)) and isinstance(max, (int, float)) and min < max:
        return nn.ReLU6() if (min, max) == (0, 6) else nn.Hardtanh(min, max)
    return None


def _clamp_min(input: Activation, min: Any) -> nn.Module | None:
    return _clamp(input, min)


def _softmax(
    input: Activation, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> nn.Module | None:
    return None if dim is None or dtype is not None else nn.Softmax(dim)


def _log_softmax(
    input: Activation, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> nn.Module | None:
    return None if dim is None or dtype is not None else nn.LogSoftmax(dim)


def _dropout(input: Activation, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return None if training else nn.Dropout(p)


ACTIVATIONS: dict[Any, tuple[str, Converter]] = {
    **dict.fromkeys((F.relu, torch.relu, "relu"), ("relu", _of(nn.ReLU))),
    F.relu6: ("relu6", _of(nn.ReLU6)),
    F.leaky_relu: ("leaky_relu", _leaky_relu),
    **dict.fromkeys((F.elu,), ("elu", _elu)),
    **dict.fromkeys((F.selu, torch.selu), ("selu", _of(nn.SELU))),
    **dict.fromkeys((F.celu, torch.celu), ("celu", _celu)),
    F.gelu: ("gelu", _gelu),
    F.silu: ("silu", _of(nn.SiLU)),
    F.mish: ("mish", _of(nn.Mish)),
    F.hardswish: ("hardswish", _of(nn.Hardswish)),
    F.hardsigmoid: ("hardsigmoid", _of(nn.Hardsigmoid)),
    F.hardtanh: ("hardtanh", _hardtanh),
    F.softplus: ("softplus", _softplus),
    F.softsign: ("softsign", _of(nn.Softsign)),
    F.logsigmoid: ("log_sigmoid", _of(nn.LogSigmoid)),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), ("sigmoid", _of(nn.Sigmoid))),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), ("tanh", _of(nn.Tanh))),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip"), ("clamp", _clamp)),
    **dict.fromkeys((torch.clamp_min, "clamp_min"), ("clamp", _clamp_min)),
    **dict.fromkeys((F.softmax, torch.softmax, "softmax"), ("softmax", _softmax)),
    **dict.fromkeys((F.log_softmax, torch.log_softmax, "log_softmax"), ("log_softmax", _log_softmax)),
    F.dropout: ("dropout", _dropout),
}
