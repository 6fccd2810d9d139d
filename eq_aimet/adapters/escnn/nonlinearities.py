"""From the nonlinearities that only escnn has, and e2cnn has not, to plain modules.

Every function here takes one module and returns a new plain module. The given module stays unchanged.
"""

from __future__ import annotations

import torch
from escnn import nn as enn

from eq_aimet.adapters.plain_twins.blockwise import blockwise_map
from eq_aimet.errors import ExportError
from eq_aimet.plain import GatedChannels

__all__ = ["fourier", "leaky_relu", "uniformly_gated"]

_FUNCTIONS = {
    **dict.fromkeys(("relu", "relu_"), torch.nn.ReLU),
    **dict.fromkeys(("elu", "elu_"), torch.nn.ELU),
    **dict.fromkeys(("sigmoid", "sigmoid_"), torch.nn.Sigmoid),
    **dict.fromkeys(("tanh", "tanh_"), torch.nn.Tanh),
}


def leaky_relu(module: enn.LeakyReLU) -> torch.nn.Module:
    """Return torch's `LeakyReLU`."""
    return torch.nn.LeakyReLU(module._negative_slope)


def fourier(module: enn.FourierPointwise | enn.QuotientFourierPointwise) -> torch.nn.Module:
    """Return a module that samples each field on a grid, applies the function, and transforms back."""
    count = len(module.in_type)
    return torch.nn.Sequential(
        blockwise_map(module.in_type, count * [module.A]),
        _FUNCTIONS[module._function.__name__](),
        blockwise_map(module.in_type, count * [module.Ainv]),
    )


def uniformly_gated(module: enn.GatedNonLinearityUniform) -> torch.nn.Module:
    """Return the `GatedChannels` of a `GatedNonLinearityUniform`: gates come first in each field.

    Raises:
        ExportError: If the gate function is not the sigmoid.
    """
    if getattr(module.gate_function, "__name__", None) != "sigmoid" and not isinstance(
        module.gate_function, torch.nn.Sigmoid
    ):
        raise ExportError(
            f"`GatedNonLinearityUniform` has the gate function {module.gate_function!r}; only "
            "`torch.sigmoid` has a plain equivalent here. Train with the sigmoid, or register a plugin."
        )
    gates: list[int] = []
    channels: list[int] = []
    gate_of_channel: list[int] = []
    gate_of_feature = module.expansion.argmax(1).tolist()
    for field in range(len(module.in_type)):
        start = field * module.rho_in.size
        gates += range(start, start + module.n_gates)
        channels += range(start + module.n_gates, start + module.rho_in.size)
        gate_of_channel += [field * module.n_gates + gate for gate in gate_of_feature]
    return GatedChannels(module.bias.detach().flatten(), gates, channels, gate_of_channel)
