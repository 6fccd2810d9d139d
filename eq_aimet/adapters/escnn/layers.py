"""From the layers that only escnn has, and e2cnn has not, to plain layers.

Every function here takes one module and returns a new plain module. The given module stays unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from escnn import nn as enn

from eq_aimet.adapters.fields import tag_with_types
from eq_aimet.adapters.plain_twins.layers import new_batch_norm, refuse_batch_statistics

__all__ = ["iid_batch_norm", "linear"]


def linear(module: enn.Linear) -> torch.nn.Module:
    """Return the torch `Linear` of escnn's `Linear`."""
    with torch.no_grad():
        # The stored `matrix` is stale if the weights changed in eval mode, so the matrix is expanded again.
        weight, bias = module.expand_parameters()
    layer = torch.nn.Linear(module.in_type.size, module.out_type.size, bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach().clone())
    return tag_with_types(layer, module.in_type, module.out_type)


def iid_batch_norm(module: enn.IIDBatchNorm1d | enn.IIDBatchNorm2d) -> torch.nn.Module:
    """Return the batch norm of an `IIDBatchNorm`: one variance per field, and means of its invariant part."""
    refuse_batch_statistics(module)
    names = [representation.name for representation in module.in_type.representations]
    values = {name: _field_values(module, name) for name in set(names)}
    # Per field: mean, variance, weight and bias, of shape (4, size). escnn numbers the fields of each name.
    fields = [values[name][:, names[:position].count(name)] for position, name in enumerate(names)]
    layer = new_batch_norm(module, fields[0])
    with torch.no_grad():
        numbers = torch.cat(fields, 1)
        for name, value in zip(("running_mean", "running_var", "weight", "bias"), numbers, strict=True):
            getattr(layer, name).copy_(value)
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.copy_(module.num_batches_tracked)
    return tag_with_types(layer, module.in_type, module.out_type)


def _field_values(module: Any, name: str) -> torch.Tensor:
    """Return mean, variance, weight and bias of the channels, of shape (4, fields, size)."""
    size = dict(module._sizes)[name]

    def get(suffix: str, default: float) -> torch.Tensor:
        found = getattr(module, f"{module._escape_name(name)}_{suffix}", None)
        value = torch.full_like(variance, default) if found is None else found.detach()
        return value.expand(-1, size)

    variance = getattr(module, f"{module._escape_name(name)}_running_var").detach()  # [fields, 1]
    bias = getattr(module, f"{module._escape_name(name)}_bias", None)
    if bias is None:
        biases = torch.zeros_like(variance).expand(-1, size)
    else:
        # Each bias scales an invariant vector of the field. This vector is a column of the change of basis.
        biases = bias.detach() @ getattr(module, f"{module._escape_name(name)}_change_of_basis").t()
    return torch.stack((get("running_mean", 0.0), variance.expand(-1, size), get("weight", 1.0), biases))
