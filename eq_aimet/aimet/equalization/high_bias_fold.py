"""High-bias fold on blocks: the part of a bias that ReLU always lets through moves into the next layer.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721,
section 4.1.3. Let β and γ be the parameters of the folded batch norm, divided by the scale of the CLS set. As
long as an activation stays within three standard deviations of its mean, it is above c = max(0, β − 3|γ|).
Then the biases b₁ − c and b₂ + Σ W₂ c give the same function. Beyond three standard deviations, ReLU cuts off
a part of the activation, and the function changes. `FunctionCheck` does not compare this step. A zero-padded
layer reads zeros at the border, which the shift does not reach, so the fold is not exact there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from eq_aimet.aimet.equalization.block_scaling import Convolution
from eq_aimet.aimet.internals import absorb_bias
from eq_aimet.aimet.output_statistics import shift_statistics
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import LayerBlocks, weight_orbits
from eq_aimet.symmetry.layers import is_transposed
from eq_aimet.symmetry.orbits import bias_orbits, orbit_means, orbit_spreads
from eq_aimet.symmetry.scaling import FloatArray, block_ranges, join_blocks

__all__ = [
    "Absorption",
    "HighBiasFoldMode",
    "absorbable_bias",
    "bias_correction",
    "fold_pair",
    "sees_no_zeros",
]

HighBiasFoldMode = Literal["unpadded", "all", "off"]


@dataclass(frozen=True)
class Absorption:
    """The bias that the high-bias fold moved between two layers.

    Attributes:
        source: The layer that loses bias.
        sink: The layer that takes the bias.
        channels: The number of channels of the source that lost bias.
        largest: The largest |c|, after scaling.
        reason: The reason if no bias moved, or an empty string.
    """

    source: Convolution
    sink: Convolution
    channels: int = 0
    largest: float = 0.0
    reason: str = ""


def check_mode(high_bias_fold: str) -> HighBiasFoldMode:
    """Return the mode as given.

    Raises:
        InvalidArgumentError: If the mode is not one of the three modes.
    """
    if high_bias_fold not in get_args(HighBiasFoldMode):
        raise InvalidArgumentError(
            "high_bias_fold",
            received=repr(high_bias_fold),
            expected="'unpadded', 'all' or 'off'",
            remedy="'unpadded' absorbs where this is exact, 'all' everywhere as AIMET does, 'off' nowhere.",
        )
    return high_bias_fold  # type: ignore[return-value]


def sees_no_zeros(layer: Convolution) -> bool:
    """Return whether a constant shift of the layer's input shifts each output channel by a constant.

    Zero padding breaks this at the border. The other padding modes repeat values of the shifted input and so
    carry the shift along. A transposed convolution of stride 1 is a convolution padded with d(k−1) − p zeros;
    with a stride, different outputs see different taps.

    Example:
        >>> sees_no_zeros(torch.nn.Conv2d(4, 4, 3)), sees_no_zeros(torch.nn.Conv2d(4, 4, 3, padding=1))
        (True, False)
    """
    padding: Any = layer.padding
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if is_transposed(layer):
        covered = all(p >= r for p, r in zip(padding, reach, strict=True))
        return covered and set(layer.stride) == {1} and set(layer.output_padding) == {0}
    if layer.padding_mode != "zeros" or padding == "valid":
        return True
    if padding == "same":
        return not any(reach)
    return not any(padding)


def absorbable_bias(
    beta: FloatArray, gamma: FloatArray, *, relu: bool, blocks: tuple[int, ...] | None
) -> FloatArray:
    """Return c, the bias that can move to the next layer, of shape (channels,) and equal on each block.

    With a ReLU this is exact only up to three standard deviations.

    Args:
        beta: The batch norm's β over the scale, of shape (channels,).
        gamma: The batch norm's γ over the scale, of shape (channels,).
        relu: Whether a ReLU follows; without a ReLU all of β can move.
        blocks: The blocks of these channels. Where β and γ differ within a block, the smallest c is taken.

    Example:
        >>> absorbable_bias(np.array([4.0, 1.0]), np.array([-1.0, 1.0]), relu=True, blocks=None).tolist()
        [1.0, 0.0]
    """
    absorbed = np.maximum(0, beta - 3 * np.abs(gamma)) if relu else beta
    return absorbed if blocks is None else -block_ranges(-absorbed, blocks)


def bias_correction(layer: Convolution, absorbed: FloatArray) -> FloatArray:
    """Return Σ W c of a layer, group by group, of shape (output channels,)."""
    weight = layer.weight.detach().cpu().numpy()
    weight = weight[..., None] if weight.ndim == 3 else weight
    channel_wise = layer.groups > 1 and weight.shape[1] == 1
    parts = 1 if channel_wise else layer.groups
    grouped = weight.reshape(
        parts, -1, *weight.shape[1:]
    )  # [groups, out, in, k, k], transposed: [groups, in, out, k, k]
    if is_transposed(layer) and not channel_wise:
        grouped = grouped.swapaxes(1, 2)
    return np.concatenate(
        [_sum_of_products(*part) for part in zip(grouped, np.split(absorbed, parts), strict=True)]
    )


def _sum_of_products(weight: FloatArray, absorbed: FloatArray) -> FloatArray:
    # AIMET's own products, so that dense layers get AIMET's numbers to the last bit. Zeros stand for the
    # layer's bias.
    zeros = np.zeros(weight.shape[0], dtype=weight.dtype)
    return absorb_bias(False, absorbed, absorbed, weight, zeros, absorbed)[1]


def fold_pair(pair: Any, norm: Any, mode: HighBiasFoldMode, *, norm_follows: bool) -> Absorption:
    """Move bias between two layers of a CLS set, in place; return the record of the move.

    In mode "unpadded" the function of the two layers is kept for activations within three standard
    deviations of their mean (see the head of this file).

    Args:
        pair: AIMET's `ClsSetLayerPairInfo`.
        norm: The batch norm that was folded into the first layer, or `None`.
        mode: The mode of the high-bias fold.
        norm_follows: Whether the batch norm came after the layer and so gives the spread of its output.
    """
    source, sink = pair.layer1, pair.layer2
    reason = _reason_against(source, sink, norm, mode, norm_follows)
    if reason:
        return Absorption(source, sink, reason=reason)
    source_blocks, sink_blocks = layer_blocks(source), layer_blocks(sink)
    absorbed = absorbable_bias(
        norm.bias.detach().cpu().numpy() / pair.scale_factor,
        norm.weight.detach().cpu().numpy() / pair.scale_factor,
        relu=pair.relu_activation_between_layers,
        blocks=join_blocks(
            source_blocks.blocks_out if source_blocks else None,
            sink_blocks.blocks_in if sink_blocks else None,
        ),
    )
    correction = torch.from_numpy(bias_correction(sink, absorbed))
    if sink_blocks is not None:
        correction = _tied(correction, sink, sink_blocks)
    with torch.no_grad():
        source.bias.copy_(source.bias.detach().cpu() - torch.from_numpy(absorbed))
        sink.bias.copy_(sink.bias.detach().cpu() + correction)
    shift_statistics(source, absorbed)
    channels = int(np.count_nonzero(absorbed))
    if channels == 0:
        return Absorption(source, sink, reason="no bias exceeds three standard deviations")
    return Absorption(source, sink, channels, float(np.abs(absorbed).max()))


def _reason_against(
    source: Convolution,
    sink: Convolution,
    norm: Any,
    mode: HighBiasFoldMode,
    norm_follows: bool,
) -> str:
    if mode == "off":
        return "the high-bias fold is off"
    if norm is None:
        return "no batch norm was folded into the source"
    if not norm_follows:
        return "the source's batch norm came before it and does not tell how its output is spread"
    if source.bias is None or sink.bias is None:
        return "the source has no bias" if source.bias is None else "the sink has no bias"
    if mode == "unpadded" and not sees_no_zeros(sink):
        if is_transposed(sink):
            return "the sink is a transposed convolution whose outputs see different taps"
        return "the sink is zero-padded"
    return ""


def _tied(correction: torch.Tensor, layer: Convolution, blocks: LayerBlocks) -> torch.Tensor:
    """Return the correction with the last bits of each orbit made equal, if the layer's weights are tied.

    The sums of one orbit have the same terms in a different order, and so differ in the last bit.
    """
    if not blocks.actions or orbit_spreads(layer.weight, weight_orbits(layer, blocks)).max() > 0:
        return correction
    return orbit_means(correction, bias_orbits(blocks))


def has_tied_bias(layer: Any) -> bool:
    """Return whether the group's actions tie the layer's bias, and its weight and bias are tied indeed."""
    blocks = layer_blocks(layer)
    if blocks is None or not blocks.actions:
        return False
    if orbit_spreads(layer.weight, weight_orbits(layer, blocks)).max() > 0:
        return False
    return layer.bias is None or not orbit_spreads(layer.bias, bias_orbits(blocks)).max() > 0


def tie_bias(layer: Any) -> None:
    """Replace the bias of each orbit by its mean, in place; for a layer with blocks and a bias."""
    blocks = layer_blocks(layer)
    assert blocks is not None
    with torch.no_grad():
        layer.bias.copy_(orbit_means(layer.bias, bias_orbits(blocks)))
