"""The mean and the deviation of each channel of a layer's output, as the folded batch norm tells them.

A batch norm gives each channel of its output the mean β and the standard deviation |γ|√(v/(v + ε)), if its
running variance v is right. After folding, the layer before the batch norm has this output; scaling divides
the output by the scales of the layer, and the high-bias fold shifts it (Nagel et al., arXiv 1906.04721,
sections 4.1 and 4.2). The record lies on the layer itself, as blocks do, so that it survives copies, pickling
and AIMET's conversion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from eq_aimet.symmetry.layers import is_layer, layer_ranges
from eq_aimet.symmetry.scaling import FloatArray

__all__ = [
    "OutputStatistics",
    "forget_outdated",
    "is_outdated",
    "note_weights",
    "output_statistics",
    "record_statistics",
    "scale_statistics",
    "shift_statistics",
]

_ATTRIBUTE = "eq_aimet_statistics"
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


@dataclass(frozen=True)
class OutputStatistics:
    """The spread of a layer's output, channel by channel.

    Attributes:
        means: The mean of each output channel.
        deviations: The standard deviation of each output channel, not negative.
        ranges: The largest |w| of each output channel when the record was made; it shows a later change.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    ranges: tuple[float, ...]

    def __repr__(self) -> str:
        return f"OutputStatistics({len(self.means)} channels)"


def output_statistics(module: torch.nn.Module) -> OutputStatistics | None:
    """Return the statistics of a module's output: its record, those of a batch norm itself, or `None`.

    Example:
        >>> norm = torch.nn.BatchNorm2d(2)
        >>> norm.bias.data = torch.tensor([3.0, -2.0])
        >>> output_statistics(norm).means, [round(value, 4) for value in output_statistics(norm).deviations]
        ((3.0, -2.0), [1.0, 1.0])
    """
    record = module.__dict__.get(_ATTRIBUTE)
    if isinstance(record, OutputStatistics):
        return record
    # AIMET writes the running statistics of an unfolded batch norm into its γ and β, and tracks none then.
    if isinstance(module, _NORMS) and module.affine and module.track_running_stats:
        # Not |γ| alone: with ε, a channel that never changes has no deviation, although γ is not zero.
        assert module.running_var is not None
        variance = module.running_var.detach().double()
        deviations = module.weight.detach().abs() * (variance / (variance + module.eps)).sqrt()
        return OutputStatistics(
            _floats(module.bias.detach().cpu()), _floats(deviations.cpu()), _ranges(module)
        )
    return None


def record_statistics(layer: torch.nn.Module, statistics: OutputStatistics | None) -> None:
    """Put statistics on the layer that has this output now, in place; `None` removes its record."""
    if statistics is not None:
        _put(layer, replace(statistics, ranges=_ranges(layer)))
    else:
        layer.__dict__.pop(_ATTRIBUTE, None)


def scale_statistics(layer: torch.nn.Module, scales: ArrayLike) -> None:
    """Divide the layer's record, if it has one, by positive scales of shape (channels,), in place."""
    record = layer.__dict__.get(_ATTRIBUTE)
    if record is not None:
        divisors = np.asarray(scales, dtype=np.float64)
        means, deviations = np.array(record.means) / divisors, np.array(record.deviations) / divisors
        _put(layer, replace(record, means=_floats(means), deviations=_floats(deviations)))


def shift_statistics(layer: torch.nn.Module, absorbed: ArrayLike) -> None:
    """Subtract the bias that a layer lost, of shape (channels,), from the means of its record, in place."""
    record = layer.__dict__.get(_ATTRIBUTE)
    if record is not None:
        means = np.array(record.means) - np.asarray(absorbed, dtype=np.float64)
        _put(layer, replace(record, means=_floats(means)))


def note_weights(layers: Iterable[torch.nn.Module]) -> None:
    """Note in the record of each layer, in place, that it belongs to the weights as they are now."""
    for layer in layers:
        record = layer.__dict__.get(_ATTRIBUTE)
        if record is not None:
            _put(layer, replace(record, ranges=_ranges(layer)))


def forget_outdated(layers: Iterable[torch.nn.Module]) -> None:
    """Remove the record of each layer whose weights have changed since it was made, in place."""
    for layer in layers:
        if is_outdated(layer):
            del layer.__dict__[_ATTRIBUTE]


def is_outdated(layer: torch.nn.Module) -> bool:
    """Return whether the layer has a record that does not belong to its weights.

    Changes by rounding and tying are allowed: a tenth of the range of a channel, and one step of an 8-bit
    grid.
    """
    record = layer.__dict__.get(_ATTRIBUTE)
    if record is None:
        return False
    noted, now = np.array(record.ranges), np.array(_ranges(layer))
    if noted.shape != now.shape or noted.shape != np.shape(record.means):
        return True
    return bool((np.abs(now - noted) > 0.1 * noted + noted.max(initial=0.0) / 127).any())


def _put(layer: torch.nn.Module, record: OutputStatistics) -> None:
    # A new record each time: a snapshot that holds the former record can put it back unchanged.
    setattr(layer, _ATTRIBUTE, record)


def _ranges(layer: torch.nn.Module) -> tuple[float, ...]:
    """Return the largest |w| of each output channel, as the layer's weight is now."""
    if is_layer(layer):
        return _floats(layer_ranges(layer)[0].cpu())
    return _floats(layer.get_parameter("weight").detach().abs().cpu())


def _floats(values: ArrayLike) -> tuple[float, ...]:
    flat: FloatArray = np.asarray(values, dtype=np.float64)
    return tuple(flat.tolist())
