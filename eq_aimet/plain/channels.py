"""Plain modules that join tensors and select channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["Concat", "SelectChannels"]


class Concat(torch.nn.Module):
    """The concatenation of tensors as a module, so that AIMET can quantize it.

    Args:
        dim: The dimension along which the tensors are joined; the channels by default.
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the tensors one after the other along `dim`."""
        return torch.cat(tensors, self.dim)

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        return f"dim={self.dim}"


class SelectChannels(torch.nn.Module):
    """Some channels of a tensor, in a given order; channels may be left out or repeated.

    Args:
        channels: The positions of the channels, in the order of the output.

    Example:
        >>> SelectChannels((2, 0))(torch.tensor([[10.0, 11.0, 12.0]]))
        tensor([[12., 10.]])
    """

    channels: torch.Tensor | None

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        positions = [int(channel) for channel in channels]
        if not positions or min(positions) < 0:
            raise InvalidArgumentError(
                "channels",
                received=positions,
                expected="one or more positions of channels, 0 or larger",
                remedy="Count the channels of the input from 0.",
            )
        self.start, self.stop = positions[0], positions[-1] + 1
        is_range = positions == list(range(self.start, self.stop))
        # Adjacent channels are selected by a slice, which costs nothing. Other channels need an index list.
        self.register_buffer("channels", None if is_range else torch.tensor(positions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the selected channels, (batch, selected, …) of (batch, channels, …)."""
        if self.channels is None:
            return x[:, self.start : self.stop]
        return x.index_select(1, self.channels)

    def extra_repr(self) -> str:
        """Return the number of channels, or their range, for the module's string form."""
        return f"{self.start}:{self.stop}" if self.channels is None else f"{len(self.channels)} channels"
