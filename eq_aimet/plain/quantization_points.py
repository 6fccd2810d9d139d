"""Plain modules that change no value and mark where AIMET quantizes."""

from __future__ import annotations

import torch

__all__ = ["QuantizationPoint"]


class QuantizationPoint(torch.nn.Module):
    """Returns its input; AIMET puts a quantizer on its output.

    An operation that is not a module has no quantizers. `export_model` puts this module after the operation,
    or before it if the operation reads the model's input, so that the next layer reads integers on the
    device.

    Example:
        >>> QuantizationPoint()(torch.tensor([1.0]))
        tensor([1.])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`."""
        return x
