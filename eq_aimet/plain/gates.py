"""Plain modules that multiply channels by the sigmoid of their gates: e2cnn's gated nonlinearities."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eq_aimet.plain.arithmetic import Multiply
from eq_aimet.plain.channels import Concat, SelectChannels

__all__ = ["Gate", "GatedChannels", "ShiftedSigmoid"]


class ShiftedSigmoid(torch.nn.Module):
    """The sigmoid of each channel after its bias is subtracted.

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
    """Channels multiplied by the sigmoid of their gates, which are a separate tensor.

    Args:
        bias: The number that is subtracted from each gate, of shape (gates,).
        gate_of_channel: For each channel the position of its gate.
    """

    def __init__(self, bias: torch.Tensor, gate_of_channel: Sequence[int]) -> None:
        super().__init__()
        self.sigmoid = ShiftedSigmoid(bias)
        self.spread = SelectChannels(gate_of_channel)
        self.multiply = Multiply()

    def forward(self, gates: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the gated channels, of the shape (batch, channels, height, width) of `x`."""
        gated: torch.Tensor = self.multiply(x, self.spread(self.sigmoid(gates)))
        return gated


class GatedChannels(torch.nn.Module):
    """Channels multiplied by the sigmoid of their gates, which are channels of the same tensor.

    Args:
        bias: The number that is subtracted from each gate, of shape (gates,).
        gates: The positions of the gates.
        channels: The positions of the gated channels.
        gate_of_channel: For each gated channel the position of its gate among `gates`.
        keep_gates: Whether the output also holds the gates after the sigmoid. Each channel then keeps its
            position.
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
        gated: torch.Tensor = self.multiply(self.select_channels(x), self.spread(gates))
        if self.concat is not None:
            gated = self.restore(self.concat(gates, gated))
        return gated
