"""One encoding per rotation block in AIMET's QuantizationSimModel.

Where AIMET ranges every output channel by itself, channels of one block whose filters are not bit-identical
copies (the two orbits of a C8 block, say) are rounded on different grids. Quarter turns stay exact, but the
turns by 45° between the orbits then meet other rounding errors. With one encoding per block all orientations
are rounded alike (Mohamed et al., arXiv 2004.09691).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase, GroupedBlockQuantizeDequantize
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation.export_readiness import check_simulation
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.layers import channel_counts, is_transposed

__all__ = ["TiedEncoding", "TyingReport", "tie_encodings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TiedEncoding:
    """One parameter whose encodings were tied.

    Attributes:
        name: The parameter's full name in the model, e.g. `conv1.weight`.
        channels: How many encodings AIMET made, one per output channel.
        blocks: How many there are now, one per block.
    """

    name: str
    channels: int
    blocks: int


@dataclass(frozen=True)
class TyingReport:
    """What `tie_encodings` did.

    Attributes:
        tied: The parameters that have one encoding per block.
        untouched: The names of the layers with blocks that needed nothing, each with the reason.
    """

    tied: tuple[TiedEncoding, ...]
    untouched: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [f"{tied.name}: {tied.channels} encodings became {tied.blocks}" for tied in self.tied]
        return "\n".join([*lines, *(f"{name}: untouched, {reason}" for name, reason in self.untouched)])

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return {
            "tied": [vars(tied) for tied in self.tied],
            "untouched": dict(self.untouched),
        }


_Write = tuple[AffineQuantizerBase, torch.Tensor, torch.Tensor]  # a quantizer and its new minimum and maximum


def tie_encodings(sim: QuantizationSimModel) -> TyingReport:
    """Give all output channels of one rotation block one weight encoding, in place.

    Where AIMET made one encoding per channel, those of a block become the smallest minimum and the largest
    maximum among them, so that symmetric encodings stay symmetric. Parameters with one encoding for the
    whole tensor need nothing. Either all layers are changed or, on an error, none.

    Args:
        sim: AIMET's simulation of a model that carries blocks, with its encodings computed.

    Returns:
        Which encodings were tied, and which layers needed nothing and why.

    Raises:
        InvalidArgumentError: If `sim` isn't AIMET's, no layer of it carries blocks, its encodings are not
            computed yet, or an encoding can't be tied: it is frozen, or divides the weight along more than
            the output channels.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import tag_blocks, tie_encodings
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1))
        >>> handle = tag_blocks(model[0], 4)
        >>> images = torch.rand(1, 4, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=images)
        >>> sim.compute_encodings(lambda model: model(images))
        >>> print(tie_encodings(sim))
        0.weight: 8 encodings became 2
    """
    check_simulation(sim)
    tied: list[TiedEncoding] = []
    writes: list[_Write] = []
    untouched: list[tuple[str, str]] = []
    for name, module in sim.model.named_modules():
        blocks = layer_blocks(module)
        if blocks is None:
            continue
        quantizers, reason = _channelwise_quantizers(name, module, blocks)
        if reason:
            untouched.append((name, reason))
        for parameter, quantizer in quantizers.items():
            entry, write = _tie(_join(name, parameter), quantizer, blocks.blocks_out)
            tied.append(entry)
            writes += write
    if not tied and not untouched:
        raise InvalidArgumentError(
            "sim",
            received="a simulation in which no layer carries rotation blocks",
            expected="the simulation of a model out of `export_model`, or of layers tagged with `tag_blocks`",
            remedy="Tag the model before AIMET takes it; a conventional model has nothing to tie.",
        )
    for quantizer, minimum, maximum in writes:
        quantizer.set_range(minimum, maximum)
    report = TyingReport(tuple(tied), tuple(untouched))
    logger.info("Tied encodings:\n%s", report)
    return report


def _join(name: str, parameter: str) -> str:
    return f"{name}.{parameter}" if name else parameter


def _channelwise_quantizers(
    name: str, module: torch.nn.Module, blocks: LayerBlocks
) -> tuple[dict[str, AffineQuantizerBase], str | None]:
    """Return the layer's quantizers with one encoding per channel by parameter, or none and the reason."""
    if not isinstance(module, BaseQuantizationMixin):
        return {}, "AIMET does not quantize it"
    channels = channel_counts(module)
    if channels is None or channels[1] != sum(blocks.blocks_out):
        raise InvalidArgumentError(
            "sim",
            received=f"{blocks} on {name}, a {type(module).__name__} of {channels} channels",
            expected="blocks that add up to the layer's channels",
            remedy="Tag the layer again with `tag_blocks` after its channels were changed.",
        )
    if max(blocks.blocks_out) == 1:
        return {}, "its blocks are single channels"
    quantizers = {key: value for key, value in module.param_quantizers.items() if value is not None}
    if not quantizers:
        return {}, "its parameters are not quantized"
    for parameter, quantizer in quantizers.items():
        axis = 1 if parameter == "weight" and is_transposed(module) else 0
        _check_quantizer(_join(name, parameter), quantizer, getattr(module, parameter), axis)
    channelwise = {
        key: value for key, value in quantizers.items() if math.prod(getattr(value, "shape", ())) > 1
    }
    return channelwise, None if channelwise else "one encoding for the whole parameter"


def _check_quantizer(name: str, quantizer: QuantizerBase, parameter: torch.Tensor, axis: int) -> None:
    """Raise unless the quantizer is ready and divides the parameter along its output channels at most."""
    shape = tuple(getattr(quantizer, "shape", ()))
    channelwise = tuple(size if position == axis else 1 for position, size in enumerate(parameter.shape))
    # AIMET leaves out leading dimensions of one: a shape (out, 1) stands for (…, out, 1).
    padded = (1,) * (parameter.dim() - len(shape)) + shape
    if not quantizer.is_initialized():
        received = f"no encoding of {name}"
        expected = "encodings that are computed"
        remedy = "Call `sim.compute_encodings(forward)` first."
    elif not isinstance(quantizer, AffineQuantizerBase):
        if shape in ((), (1,)) or padded == (1,) * parameter.dim():
            return
        received = f"a {type(quantizer).__name__} of {name}"
        expected = "integer (affine) encodings"
        remedy = "Quantize this layer to integers, or leave it in floating point."
    elif isinstance(quantizer, GroupedBlockQuantizeDequantize) or quantizer.block_size is not None:
        received = f"blockwise encodings of shape {shape} of {name}"
        expected = "one encoding per output channel or per tensor"
        remedy = "Blockwise encodings cut through fields; use per-channel or per-tensor ones for this layer."
    elif padded not in (channelwise, (1,) * parameter.dim()):
        received = f"encodings of shape {shape} of {name}, of shape {tuple(parameter.shape)}"
        expected = f"shape {channelwise} or one encoding per tensor"
        remedy = "Use AIMET's per-channel or per-tensor configuration for this layer."
    else:
        return
    raise InvalidArgumentError("sim", received=received, expected=expected, remedy=remedy)


def _tie(
    name: str, quantizer: AffineQuantizerBase, blocks: tuple[int, ...]
) -> tuple[TiedEncoding, list[_Write]]:
    """Return the entry for the report, and the range to write unless the encodings are tied already."""
    # The stored range where there is one: what AIMET recomputes from the scale can be off by a rounding.
    stored = dict(quantizer.named_parameters(recurse=False))
    minimum = stored.get("min", quantizer.get_min()).detach()
    maximum = stored.get("max", quantizer.get_max()).detach()
    tied_minimum, tied_maximum = -_block_maxima(-minimum, blocks), _block_maxima(maximum, blocks)
    labels = _block_maxima(torch.arange(minimum.numel()), blocks)
    entry = TiedEncoding(name, minimum.numel(), len(labels.unique()))
    if torch.equal(tied_minimum, minimum) and torch.equal(tied_maximum, maximum):
        return entry, []
    if not all(quantizer.is_overwrite_allowed(key) for key in ("min", "max")):
        raise InvalidArgumentError(
            "sim",
            received=f"frozen encodings of {name} that differ within a block",
            expected="encodings that may be overwritten, or that are tied already",
            remedy="Call `allow_overwrite(True)` on its quantizer, or freeze it after `tie_encodings`.",
        )
    return entry, [(quantizer, tied_minimum, tied_maximum)]


def _block_maxima(values: torch.Tensor, blocks: tuple[int, ...]) -> torch.Tensor:
    """Return `values`, one for each output channel, with the largest of their block in the place of each.

    A grouped transposed convolution has fewer values than channels, since its groups share them; blocks
    that share a value are then joined.
    """
    flat = values.flatten()
    places = torch.arange(sum(blocks), device=values.device) % len(flat)  # [channels]
    sizes = torch.tensor(blocks, device=values.device)
    block_of = torch.repeat_interleave(torch.arange(len(blocks), device=values.device), sizes)  # [channels]
    while True:
        largest = flat.new_zeros(len(blocks)).scatter_reduce(
            0, block_of, flat[places], "amax", include_self=False
        )
        joined = flat.scatter_reduce(0, places, largest[block_of], "amax")
        if torch.equal(joined, flat):
            return joined.reshape(values.shape)
        flat = joined
