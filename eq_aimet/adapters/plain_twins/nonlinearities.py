"""From nonlinearities to plain modules.

Every function here takes one module and returns a new plain module. The given module stays unchanged.
"""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.adapters.fields import field_sizes
from eq_aimet.adapters.plain_twins.layers import subfield_size
from eq_aimet.plain import ConcatenatedActivation, Gate, GatedChannels, NormActivation, VectorField

__all__ = [
    "concatenated",
    "gated",
    "gated_by_second_input",
    "induced_gated",
    "induced_norm_nonlinearity",
    "norm_nonlinearity",
    "pointwise",
    "subfield_sizes",
    "vector_field",
]

_POINTWISE = {"relu": torch.nn.ReLU, "elu": torch.nn.ELU, "sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}


def pointwise(module: Any) -> torch.nn.Module:
    """Return torch's module of a `PointwiseNonLinearity`."""
    return _POINTWISE[module._function.__name__]()


def concatenated(module: Any) -> torch.nn.Module:
    """Return the `ConcatenatedActivation` of a `ConcatenatedNonLinearity`."""
    return ConcatenatedActivation(module._function.__name__)


def vector_field(module: Any) -> torch.nn.Module:
    """Return the `VectorField` of a `VectorFieldNonLinearity`."""
    return VectorField(int(module._rotations))


def norm_nonlinearity(module: Any) -> torch.nn.Module:
    """Return the `NormActivation` of a `NormNonLinearity`."""
    sizes = field_sizes(module.in_type)
    return NormActivation(sizes, _norm_function(module), _field_biases(module, list(sizes)))


def induced_norm_nonlinearity(module: Any) -> torch.nn.Module:
    """Return the `NormActivation` of an `InducedNormNonLinearity`; subfields of a field share its bias."""
    representations = module.in_type.representations
    kinds = [(representation.size, subfield_size(representation)) for representation in representations]
    biases = _field_biases(module, kinds)
    if biases is not None:
        biases = biases.repeat_interleave(
            torch.tensor([size // part for size, part in kinds]).to(biases.device)
        )
    return NormActivation(subfield_sizes(module), _norm_function(module), biases)


def subfield_sizes(module: Any) -> tuple[int, ...]:
    """Return the sizes of the subfields of `module`'s induced input fields, in channel order."""
    sizes: list[int] = []
    for representation in module.in_type.representations:
        part = subfield_size(representation)
        sizes += representation.size // part * [part]
    return tuple(sizes)


def _norm_function(module: Any) -> str:
    name = module._function.__name__
    return "squash" if name == "<lambda>" else str(name)


def _field_biases(module: Any, kinds: list[Any]) -> torch.Tensor | None:
    """Return the bias of each field in channel order; the library groups the biases by kind of field."""
    if module.log_bias is None:
        return None
    biases = module.log_bias.detach().flatten().exp()
    return biases[torch.tensor(_places(kinds)).to(biases.device)]


def _places(kinds: list[Any]) -> list[int]:
    """Return the place of each field in the library's order: by kind, then by position."""
    order = sorted(range(len(kinds)), key=kinds.__getitem__)
    places = [0] * len(kinds)
    for place, field in enumerate(order):
        places[field] = place
    return places


def gated(module: Any) -> torch.nn.Module:
    """Return the `GatedChannels` of a `GatedNonLinearity1`."""
    gates, fields = _gates_and_fields(module, "gates_indices")
    gate_of_channel: list[int] = []
    for size, place in zip(fields, _places(fields), strict=True):
        gate_of_channel += size * [place]
    return _gated_channels(module, gates, gate_of_channel, module.bias.detach().flatten())


def induced_gated(module: Any) -> torch.nn.Module:
    """Return the `GatedChannels` of an `InducedGatedNonLinearity1`: each subfield has a gate of its own."""
    gates, fields = _gates_and_fields(module, "gates_indices")
    quotient = int(module.quotient_size)
    gate_of_channel: list[int] = []
    for size, place in zip(fields, _places(fields), strict=True):
        for subfield in range(quotient):
            gate_of_channel += size // quotient * [place * quotient + subfield]
    return _gated_channels(
        module, gates, gate_of_channel, module.bias.detach().flatten().repeat_interleave(quotient)
    )


def _gates_and_fields(module: Any, name: str) -> tuple[list[int], list[int]]:
    """Return the channels of the gates, and the sizes of the gated fields in channel order."""
    indices = getattr(module, name).tolist()
    gates = list(range(*indices)) if module._contiguous["gate"] else indices
    fields = []
    start = 0
    for size in field_sizes(module.in_type):
        if start not in gates:
            fields.append(size)
        start += size
    return gates, fields


def _gated_channels(
    module: Any, gates: list[int], gate_of_channel: list[int], bias: torch.Tensor
) -> GatedChannels:
    channels = sorted(set(range(module.in_type.size)) - set(gates))
    return GatedChannels(bias, gates, channels, gate_of_channel, keep_gates=not module.drop_gates)


def gated_by_second_input(module: Any) -> torch.nn.Module:
    """Return the `Gate` of a `GatedNonLinearity2`; the `Gate` takes the gates and the gated fields."""
    sizes = list(field_sizes(module.out_type))
    gate_of_channel: list[int] = []
    for size, place in zip(sizes, _places(sizes), strict=True):
        gate_of_channel += size * [place]
    return Gate(module.bias.detach().flatten(), gate_of_channel)
