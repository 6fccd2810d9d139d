"""Plain activations whose output fields differ from their input fields: vectors and concatenations."""

from __future__ import annotations

import math

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["ConcatenatedActivation", "VectorField"]

_FUNCTIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh}


class VectorField(torch.nn.Module):
    """One vector for each block of N rotations, with the length and the direction of the largest channel.

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
        lengths, places = torch.unflatten(x, 1, (-1, self.rotations)).max(2)  # [batch, blocks, height, width]
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
