"""What batch norms tell about the outputs of the layers they were folded into, kept on those layers.

A batch norm gives each channel of its output the mean β and the standard deviation |γ|√(v/(v + ε)), as far as
its running variance v holds. Folding moves that output to the layer before it, scaling divides it by the
layer's scales, and the high-bias fold shifts it (Nagel et al., arXiv 1906.04721, sections 4.1 and 4.2). Like
the blocks, the record lies on the layer itself, so that it survives copies, pickling and AIMET's conversion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from eq_aimet.symmetry import is_layer, layer_ranges
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
    """How a layer's output is spread, channel by channel.

    Attributes:
        means: The mean of each output channel.
        deviations: The standard deviation of each, not negative.
        ranges: The largest |w| of each in the layer's weight at that time, by which a later change shows.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    ranges: tuple[float, ...]

    def __repr__(self) -> str:
        return f"OutputStatistics({len(self.means)} channels)"


def output_statistics(module: torch.nn.Module) -> OutputStatistics | None:
    """Return what is known of a module's output: its record, or what a batch norm itself says; else `None`.

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
        # |γ|, but for what ε takes of it: a channel that never changes has no deviation, whatever its γ.
        assert module.running_var is not None
        variance = module.running_var.detach().double()
        deviations = module.weight.detach().abs() * (variance / (variance + module.eps)).sqrt()
        return OutputStatistics(
            _floats(module.bias.detach().cpu()), _floats(deviations.cpu()), _ranges(module)
        )
    return None


def record_statistics(layer: torch.nn.Module, statistics: OutputStatistics | None) -> None:
    """Put statistics on the layer that has such an output now, in place; `None` takes its record away."""
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
    """Take what the layer's bias lost, of shape (channels,), from the record's means, if any; in place."""
    record = layer.__dict__.get(_ATTRIBUTE)
    if record is not None:
        means = np.array(record.means) - np.asarray(absorbed, dtype=np.float64)
        _put(layer, replace(record, means=_floats(means)))


def note_weights(layers: Iterable[torch.nn.Module]) -> None:
    """Say of each layer, in place, that its record belongs to its weights as they are now."""
    for layer in layers:
        record = layer.__dict__.get(_ATTRIBUTE)
        if record is not None:
            _put(layer, replace(record, ranges=_ranges(layer)))


def forget_outdated(layers: Iterable[torch.nn.Module]) -> None:
    """Take the record from each layer, in place, whose weights have changed since."""
    for layer in layers:
        if is_outdated(layer):
            del layer.__dict__[_ATTRIBUTE]


def is_outdated(layer: torch.nn.Module) -> bool:
    """Return whether the layer has a record and weights that it does not belong to.

    Rounding and tying of weights are let pass: a tenth of a channel's range, and one step of an 8-bit grid.
    """
    record = layer.__dict__.get(_ATTRIBUTE)
    if record is None:
        return False
    noted, now = np.array(record.ranges), np.array(_ranges(layer))
    if noted.shape != now.shape or noted.shape != np.shape(record.means):
        return True
    return bool((np.abs(now - noted) > 0.1 * noted + noted.max(initial=0.0) / 127).any())


def _put(layer: torch.nn.Module, record: OutputStatistics) -> None:
    # A new record each time: the former one stays whole for whoever puts it back.
    setattr(layer, _ATTRIBUTE, record)


def _ranges(layer: torch.nn.Module) -> tuple[float, ...]:
    """Return the largest |w| of each output channel, as the layer's weight is now."""
    if is_layer(layer):
        return _floats(layer_ranges(layer)[0].cpu())
    return _floats(layer.get_parameter("weight").detach().abs().cpu())


def _floats(values: ArrayLike) -> tuple[float, ...]:
    flat: FloatArray = np.asarray(values, dtype=np.float64)
    return tuple(flat.tolist())
