"""The range of the weights of each output channel, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.fx

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.judging import check_module
from eq_aimet.symmetry.layers import is_layer, is_transposed, layer_ranges

__all__ = ["LayerRanges", "measure_weight_ranges", "most_uneven_layer"]


@dataclass(frozen=True)
class LayerRanges:
    """The weights of one layer, output channel by output channel.

    Attributes:
        name: The layer's name in its model.
        kind: "depthwise", "grouped", "pointwise", "convolution" or "linear".
        minimum: Each channel's smallest weight.
        lower_quartile: Each channel's lower quartile.
        median: Each channel's median.
        upper_quartile: Each channel's upper quartile.
        maximum: Each channel's largest weight.
        ranges: Each channel's largest magnitude; cross-layer equalization calls it the range.
        blocks: The sizes of the rotation blocks in channel order; `None` if the layer has no blocks.
    """

    name: str
    kind: str
    minimum: tuple[float, ...]
    lower_quartile: tuple[float, ...]
    median: tuple[float, ...]
    upper_quartile: tuple[float, ...]
    maximum: tuple[float, ...]
    ranges: tuple[float, ...]
    blocks: tuple[int, ...] | None = None

    @property
    def largest(self) -> float:
        """The largest magnitude of all weights, which one encoding of the whole layer must span."""
        return max(self.ranges)

    @property
    def dead(self) -> int:
        """The number of channels whose weights are all zero."""
        return sum(value == 0.0 for value in self.ranges)

    @property
    def ratio(self) -> float:
        """The largest range of a channel over the smallest, without dead channels; 1.0 if all are dead."""
        alive = [value for value in self.ranges if value > 0.0]
        return max(alive) / min(alive) if alive else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the layer as plain values for JSON, with the values of the properties."""
        return {**asdict(self), "largest": self.largest, "dead": self.dead, "ratio": self.ratio}


def measure_weight_ranges(model: torch.nn.Module) -> tuple[LayerRanges, ...]:
    """Return the weight ranges of each convolution and linear layer, from input to output.

    The layers of a model that is not a `torch.fx.GraphModule` come in the order of their registration.

    To compare a model before and after equalization, fold its batch norms first: equalization folds them, and
    their scales become a part of the weights.

    Args:
        model: A plain torch model, or the `model` of AIMET's `QuantizationSimModel`.

    Raises:
        InvalidArgumentError: The model holds no convolution and no linear layer, or a weight is not finite.

    Example:
        >>> layer = torch.nn.Conv2d(1, 2, 1, bias=False)
        >>> layer.weight.data = torch.tensor([0.5, -2.0]).reshape(2, 1, 1, 1)
        >>> (ranges,) = measure_weight_ranges(torch.nn.Sequential(layer))
        >>> ranges.name, ranges.kind, ranges.ranges, ranges.ratio
        ('0', 'pointwise', (0.5, 2.0), 4.0)
    """
    check_module(model)
    found = tuple(_measure(name, layer) for name, layer in _in_order(model) if is_layer(layer))
    if not found:
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__} without convolutions and linear layers",
            expected="a plain torch model with at least one convolution or linear layer",
            remedy="Export an e2cnn model with `export_model` first.",
        )
    return found


def most_uneven_layer(layers: Sequence[LayerRanges], *, channels_at_most: int = 128) -> str:
    """Return the name of the layer whose channels differ most, for a picture of this layer.

    If the model has depthwise layers, only these count, as in the pictures of Nagel et al., arXiv 1906.04721.
    If some of them have at most `channels_at_most` channels, only these count.

    Args:
        layers: The layers before equalization.
        channels_at_most: The number of channels that a picture can show one by one.

    Raises:
        InvalidArgumentError: There is no layer.
    """
    if not layers:
        raise InvalidArgumentError(
            "layers", received="no layer", expected="at least one", remedy="Measure a model with layers."
        )
    depthwise = [layer for layer in layers if layer.kind == "depthwise"] or layers
    shown = [layer for layer in depthwise if len(layer.ranges) <= channels_at_most] or depthwise
    return max(shown, key=lambda layer: layer.ratio).name


def _in_order(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the modules with their names, in the order of execution if the model has a graph."""
    modules = dict(model.named_modules())
    if not isinstance(model, torch.fx.GraphModule):
        return list(modules.items())
    called = [str(node.target) for node in model.graph.nodes if node.op == "call_module"]
    return [(name, modules[name]) for name in dict.fromkeys([*called, *modules])]


def _measure(name: str, layer: torch.nn.Module) -> LayerRanges:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if not torch.isfinite(weight).all():
        raise InvalidArgumentError(
            "model",
            received=f"NaN or infinite weights in `{name}`",
            expected="finite weights",
            remedy="The training has diverged; train again at a lower learning rate.",
        )
    groups = int(getattr(layer, "groups", 1))
    values = weight.detach().double().cpu()
    if is_transposed(layer):
        # [in, out/groups, …] -> [out, in/groups, …]
        values = values.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    smallest, low, middle, high, largest = np.quantile(
        values.flatten(1).numpy(), [0.0, 0.25, 0.5, 0.75, 1.0], axis=1
    )
    blocks = layer_blocks(layer)
    return LayerRanges(
        name,
        _kind(layer, groups),
        tuple(smallest.tolist()),
        tuple(low.tolist()),
        tuple(middle.tolist()),
        tuple(high.tolist()),
        tuple(largest.tolist()),
        ranges=tuple(layer_ranges(layer)[0].tolist()),
        blocks=None if blocks is None else blocks.blocks_out,
    )


def _kind(layer: torch.nn.Module, groups: int) -> str:
    if isinstance(layer, torch.nn.Linear):
        return "linear"
    if groups > 1:
        return "depthwise" if groups == layer.in_channels else "grouped"
    return "pointwise" if set(layer.kernel_size) == {1} else "convolution"  # type: ignore[arg-type]
