"""How scales pass through the modules that are looked at as a whole: layers, batch norms and block modules.

All other modules are looked at operation by operation, by `operation_rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch

from eq_aimet.aimet.equalization.scale_tracing.scale_variables import Threshold, Variables
from eq_aimet.plain import (
    BlockNorm,
    NormActivation,
    NormMaxPool,
    UnevenAveragePool,
    UnevenMaxPool,
    VectorField,
)
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.layers import channel_counts, is_convolution, is_layer

__all__ = ["channel_dim", "has_own_forward", "is_norm", "is_whole", "pass_layer", "pass_module"]

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class _Tracer(Protocol):
    variables: Variables


def is_norm(module: torch.nn.Module) -> bool:
    """Return whether a module is a batch norm that AIMET folds."""
    return isinstance(module, _NORMS) and not has_own_forward(module)


def has_own_forward(module: torch.nn.Module) -> bool:
    """Return whether a subclass of one of torch's layers computes something of its own."""
    for name in ("forward", "_conv_forward"):
        holder = next((base for base in type(module).__mro__ if name in vars(base)), None)
        if name in vars(module) or (holder is not None and not holder.__module__.startswith("torch.nn.")):
            return True
    return False


def is_whole(module: torch.nn.Module) -> bool:
    """Return whether a module is looked at as a whole."""
    if type(module) in _RULES:
        return True
    if not (is_layer(module) or isinstance(module, _NORMS)) or has_own_forward(module):
        return False
    return is_layer(module) or not (module.training or module.running_mean is None)


def channel_dim(module: Any, dims: int) -> int:
    """Return the dimension of the channels in a tensor of `dims` dimensions that a module reads or writes."""
    if is_convolution(module):
        return dims - 1 - len(module.kernel_size)
    return dims - 1 if isinstance(module, torch.nn.Linear) else 1


def per_channel(variables: Variables, ids: torch.Tensor, dim: int) -> torch.Tensor:
    """Make the variables of each channel equal; return one per channel, of shape (channels,)."""
    return variables.join_along(ids, [other for other in range(ids.dim()) if other != dim]).flatten()


def over_shape(ids: torch.Tensor, dim: int, shape: torch.Size) -> torch.Tensor:
    """Return the variables of the channels in a tensor of a shape whose dimension `dim` has the channels."""
    return ids.reshape([-1 if other == dim else 1 for other in range(len(shape))]).expand(shape)


def pass_layer(
    variables: Variables, layer: Any, inputs: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the variables of the input channels and of the output channels of one run of a layer.

    Args:
        variables: All variables; the channels of each block are joined here.
        layer: A convolution or linear layer.
        inputs: The variables of the tensor that it reads, or `None` if no scale reaches it.
    """
    counts, blocks = channel_counts(layer), layer_blocks(layer)
    assert counts is not None
    if inputs is None:
        read = variables.new(counts[0])
    else:
        read = per_channel(variables, inputs, channel_dim(layer, inputs.dim()))
    written = variables.new(counts[1])
    if blocks is not None:
        variables.join_blocks(read, blocks.blocks_in)
        variables.join_blocks(written, blocks.blocks_out)
    return read, written


def pass_module(tracer: _Tracer, module: Any, ids: torch.Tensor, shape: torch.Size) -> torch.Tensor | str:
    """Return the variables of a module's output, or the reason why no scale passes it.

    Args:
        tracer: The tracer, which knows all variables.
        module: A module for which `is_whole` is true and which is not a layer.
        ids: The variables of the module's input.
        shape: The shape of the module's output.
    """
    variables = tracer.variables
    rule = _RULES.get(type(module))
    channels = per_channel(variables, ids, 1)
    written = _batch_norm(tracer, module, channels) if rule is None else rule(tracer, module, channels)
    if isinstance(written, str):
        return written
    # Pooling and the block modules treat all pixels of a channel alike.
    return over_shape(written, 1, shape)


def _batch_norm(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor | str:
    """Pass γ(s·x − s·μ)/σ + s·β = s·(γ(x − μ)/σ + β): the mean and β scale along."""
    blocks = layer_blocks(module)
    if blocks is not None:
        tracer.variables.join_blocks(ids, blocks.blocks_out)
    for name in ("running_mean", "bias"):
        _scale_along(tracer, module, name, ids)
    return ids


def _scale_along(tracer: _Tracer, module: torch.nn.Module, name: str, ids: torch.Tensor) -> None:
    tensor = getattr(module, name)
    if tensor is not None:
        tracer.variables.scale_along(Threshold(module, name, tuple(tensor.shape), tensor.stride(), 0), ids)


def _norm_activation(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor | str:
    if module.function != "relu":
        return ""
    # relu(s·n − s·b) = s·relu(n − b): the bias scales along with the norm.
    _scale_along(tracer, module, "bias", tracer.variables.join_blocks(ids, module.blocks))
    return ids


def _block_norm(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor:
    return tracer.variables.join_blocks(ids, module.blocks)


def _norm_max_pooling(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor:
    tracer.variables.join_blocks(ids, module.blocks)
    return ids


def _pooling(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor:
    return ids


def _vector_field(tracer: _Tracer, module: Any, ids: torch.Tensor) -> torch.Tensor:
    rotations = module.rotations
    firsts = tracer.variables.join_blocks(ids, (rotations,) * (len(ids) // rotations))
    return firsts.repeat_interleave(2)


_RULES: dict[type, Callable[[_Tracer, Any, torch.Tensor], torch.Tensor | str]] = {
    BlockNorm: _block_norm,
    NormActivation: _norm_activation,
    UnevenAveragePool: _pooling,
    UnevenMaxPool: _pooling,
    NormMaxPool: _norm_max_pooling,
    VectorField: _vector_field,
}
