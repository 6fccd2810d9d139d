"""Plain modules for e2cnn's nonlinearities that make new fields: vectors, concatenations and gates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plain.operations import Concat, Multiply, SelectChannels

__all__ = ["ConcatenatedActivation", "Gate", "GatedChannels", "ShiftedSigmoid", "VectorField"]

_FUNCTIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class VectorField(torch.nn.Module):
    """A vector per block of N rotations: as long as the largest channel, and pointing in its direction.

    Args:
        rotations: N, the size of the blocks.

    Example:
        >>> VectorField(4)(torch.tensor([0.0, 3.0, 1.0, 2.0]).reshape(1, 4, 1, 1)).flatten()
        tensor([0., 3.])
    """

    directions: torch.Tensor

    def __init__(self, rotations: int) -> None:
        super().__init__()
        if rotations < 1:
            raise InvalidArgumentError(
                "rotations", received=rotations, expected="at least 1", remedy="Give the order of the group."
            )
        self.rotations = rotations
        angles = [2 * math.pi * step / rotations for step in range(rotations)]
        # Rounded, so that the quarter turns have exact zeros.
        table = [[round(math.cos(angle), 15), round(math.sin(angle), 15)] for angle in angles]
        self.register_buffer(
            "directions", torch.tensor(table, dtype=torch.float64).t().to(torch.get_default_dtype())
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the vectors, (batch, 2 · blocks, height, width) of (batch, N · blocks, height, width)."""
        lengths, places = x.unflatten(1, (-1, self.rotations)).max(2)  # [batch, blocks, height, width]
        lengths = lengths.relu()
        cosines, sines = self.directions[0][places], self.directions[1][places]
        return torch.stack((cosines * lengths, sines * lengths), 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Return the argument for the module's string form."""
        return f"{self.rotations} rotations"


class ConcatenatedActivation(torch.nn.Module):
    """A function of each channel and of its negative, one after the other.

    Args:
        function: "relu", "sigmoid" or "tanh".

    Example:
        >>> ConcatenatedActivation("relu")(torch.tensor([[2.0, -3.0]]))
        tensor([[2., 0., 0., 3.]])
    """

    def __init__(self, function: str) -> None:
        super().__init__()
        if function not in _FUNCTIONS:
            raise InvalidArgumentError(
                "function",
                received=repr(function),
                expected=", ".join(f'"{name}"' for name in _FUNCTIONS),
                remedy="Compose other functions of torch's modules and `Concat`.",
            )
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations, (batch, 2 · channels, …) of (batch, channels, …)."""
        function = _FUNCTIONS[self.function]
        return torch.stack((function(x), function(-x)), 2).flatten(1, 2)  # [batch, channels, 2, ...]

    def extra_repr(self) -> str:
        """Return the function for the module's string form."""
        return self.function


class ShiftedSigmoid(torch.nn.Module):
    """The sigmoid of each channel less its bias.

    Args:
        bias: One number per channel, of shape (channels,).
    """

    def __init__(self, bias: torch.Tensor) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `sigmoid(x - bias)`, of the shape (batch, channels, height, width) of `x`."""
        return torch.sigmoid(x - self.bias.view(1, -1, 1, 1))


class Gate(torch.nn.Module):
    """Channels multiplied by the sigmoid of their gates, which come as a tensor of their own.

    Args:
        bias: What is taken off each gate, of shape (gates,).
        gate_of_channel: For each channel the position of its gate.
    """

    def __init__(self, bias: torch.Tensor, gate_of_channel: Sequence[int]) -> None:
        super().__init__()
        self.sigmoid = ShiftedSigmoid(bias)
        self.spread = SelectChannels(gate_of_channel)
        self.multiply = Multiply()

    def forward(self, gates: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the gated channels, of the shape (batch, channels, height, width) of `x`."""
        return self.multiply(x, self.spread(self.sigmoid(gates)))


class GatedChannels(torch.nn.Module):
    """Channels multiplied by the sigmoid of their gates, which are channels of the same tensor.

    Args:
        bias: What is taken off each gate, of shape (gates,).
        gates: The positions of the gates.
        channels: The positions of the gated channels.
        gate_of_channel: For each gated channel the position of its gate among `gates`.
        keep_gates: Whether the output holds the gates after the sigmoid too, each channel where it was.
    """

    def __init__(
        self,
        bias: torch.Tensor,
        gates: Sequence[int],
        channels: Sequence[int],
        gate_of_channel: Sequence[int],
        *,
        keep_gates: bool = False,
    ) -> None:
        super().__init__()
        self.select_gates = SelectChannels(gates)
        self.select_channels = SelectChannels(channels)
        self.sigmoid = ShiftedSigmoid(bias)
        self.spread = SelectChannels(gate_of_channel)
        self.multiply = Multiply()
        self.concat: Concat | None = None
        if keep_gates:
            self.concat = Concat()
            order = torch.tensor([*gates, *channels])
            self.restore = SelectChannels(torch.argsort(order).tolist())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the gated channels, (batch, gated channels, height, width), and the gates if kept."""
        gates = self.sigmoid(self.select_gates(x))
        gated = self.multiply(self.select_channels(x), self.spread(gates))
        return gated if self.concat is None else self.restore(self.concat(gates, gated))
