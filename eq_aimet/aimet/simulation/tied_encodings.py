"""One weight encoding for channels that belong together, in AIMET's QuantizationSimModel.

AIMET computes a range for every output channel separately. The exact copies of one filter form an orbit and
have equal ranges; `tie_encodings` makes sure that an orbit has one encoding. The paper (arXiv 2004.09691)
gives all orientations of a field one encoding, so that a C8 turn by 45° keeps the rounding grid. That rule
costs resolution if the orientations of a filter have different ranges.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation.export_readiness import check_simulation
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.layers import channel_counts
from eq_aimet.symmetry.orbits import bias_orbits, weight_orbits
from eq_aimet.symmetry.shared_encodings import block_labels, covers, encoding_groups, shared_range

__all__ = ["TiedEncoding", "TyingReport", "tie_encodings"]

logger = logging.getLogger(__name__)

Rule = Literal["orbits", "blocks"]
_RULES = ("orbits", "blocks")


@dataclass(frozen=True)
class TiedEncoding:
    """One parameter whose encodings are tied.

    Attributes:
        name: The parameter's full name in the model, e.g. `conv1.weight`.
        channels: The number of encodings that AIMET made, one per output channel in most configurations.
        blocks: The largest number of different encodings that the parameter may have now: one per orbit of
            channels, or one per block.
    """

    name: str
    channels: int
    blocks: int


@dataclass(frozen=True)
class TyingReport:
    """The encodings that `tie_encodings` tied.

    Attributes:
        tied: The parameters with tied encodings.
        untouched: The names of the layers with blocks that keep AIMET's encodings, each with the reason.
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


def tie_encodings(sim: QuantizationSimModel, *, over: Rule = "orbits") -> TyingReport:
    """Give the output channels of one orbit, or of one rotation block, one weight encoding, in place.

    If AIMET made one encoding per channel, the tied channels get their smallest minimum and their largest
    maximum, so that symmetric encodings stay symmetric. A parameter with one encoding for the whole tensor
    stays unchanged. If an error occurs, no layer is changed.

    Args:
        sim: AIMET's simulation of a model that carries blocks, with its encodings computed.
        over: `"orbits"` ties the channels that the exact group elements map onto each other. These channels
            have equal ranges as long as their weights are tied, so the tie costs no resolution. `"blocks"`
            ties all channels of a block, the rule of the paper: turns by 45° then meet equal rounding grids,
            and a channel of small range is rounded more coarsely.

    Returns:
        The tied encodings, and the layers that keep AIMET's encodings, each with the reason.

    Raises:
        InvalidArgumentError: If `sim` is not AIMET's, no layer of it carries blocks, its encodings are not
            computed yet, `over` is neither "orbits" nor "blocks", or an encoding is frozen or does not fit
            its weight.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import tag_blocks, tie_encodings
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1))
        >>> handle = tag_blocks(model[0], 4)
        >>> images = torch.rand(1, 4, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=images)
        >>> sim.compute_encodings(lambda model: model(images))
        >>> print(tie_encodings(sim, over="blocks"))
        0.weight: 8 encodings became 2
    """
    check_simulation(sim)
    _check_rule(over)
    tied: list[TiedEncoding] = []
    writes: list[_Write] = []
    untouched: list[tuple[str, str]] = []
    for name, module in sim.model.named_modules():
        blocks = layer_blocks(module)
        if blocks is None:
            continue
        quantizers, reason = _divided_quantizers(name, module, blocks, over)
        if reason:
            untouched.append((name, reason))
        for parameter, quantizer in quantizers.items():
            groups = _encoding_groups(module, parameter, quantizer, blocks, over)
            entry, write = _tie(_join(name, parameter), quantizer, groups, over)
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


def _check_rule(over: object) -> None:
    if over not in _RULES:
        raise InvalidArgumentError(
            "over",
            received=repr(over),
            expected='"orbits" or "blocks"',
            remedy='Leave it out for "orbits", which costs no resolution.',
        )


def _join(name: str, parameter: str) -> str:
    return f"{name}.{parameter}" if name else parameter


def _divided_quantizers(
    name: str, module: torch.nn.Module, blocks: LayerBlocks, over: Rule
) -> tuple[dict[str, AffineQuantizerBase], str | None]:
    """Return the layer's quantizers with several encodings, by parameter; or no quantizer and the reason."""
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
    quantizers = {key: value for key, value in module.param_quantizers.items() if value is not None}
    for parameter, quantizer in quantizers.items():
        _check_quantizer(_join(name, parameter), quantizer, getattr(module, parameter))
    divided = {key: value for key, value in quantizers.items() if math.prod(getattr(value, "shape", ())) > 1}
    if max(blocks.blocks_out) == 1:
        return {}, "its blocks are single channels"
    if not quantizers:
        return {}, "its parameters are not quantized"
    if not divided:
        return {}, "one encoding for the whole parameter"
    if over == "orbits" and not blocks.actions:
        return {}, 'it carries no actions, so no channels are known to be copies; `over="blocks"` ties blocks'
    return divided, None


def _check_quantizer(name: str, quantizer: QuantizerBase, parameter: torch.Tensor) -> None:
    """Raise unless the quantizer is ready and divides the parameter into equal parts."""
    shape = tuple(getattr(quantizer, "shape", ()))
    if not quantizer.is_initialized():
        received = f"no encoding of {name}"
        expected = "encodings that are computed"
        remedy = "Call `sim.compute_encodings(forward)` first."
    elif not isinstance(quantizer, AffineQuantizerBase):
        if math.prod(shape) == 1:
            return
        received = f"a {type(quantizer).__name__} of {name}"
        expected = "integer (affine) encodings"
        remedy = "Quantize this layer to integers, or leave it in floating point."
    elif not covers(shape, tuple(parameter.shape)):
        received = f"encodings of shape {shape} of {name}, of shape {tuple(parameter.shape)}"
        expected = "encodings that divide the parameter into equal parts"
        remedy = "Use AIMET's per-channel or per-tensor configuration for this layer."
    else:
        return
    raise InvalidArgumentError("sim", received=received, expected=expected, remedy=remedy)


def _encoding_groups(
    module: torch.nn.Module, parameter: str, quantizer: AffineQuantizerBase, blocks: LayerBlocks, over: Rule
) -> torch.Tensor:
    """Return the groups of one parameter's encodings that the rule makes equal."""
    shape = tuple(getattr(module, parameter).shape)
    if over == "blocks":
        labels = block_labels(module, shape, blocks)
    elif len(shape) == 1:
        labels = bias_orbits(blocks)
    else:
        labels = weight_orbits(module, blocks)
    return encoding_groups(tuple(quantizer.shape), labels)


def _tie(
    name: str, quantizer: AffineQuantizerBase, groups: torch.Tensor, over: Rule
) -> tuple[TiedEncoding, list[_Write]]:
    """Return the entry for the report, and the range to write unless the encodings are tied already."""
    # Prefer the stored range: the range that AIMET recomputes from the scale can differ by a rounding.
    stored = dict(quantizer.named_parameters(recurse=False))
    minimum = stored.get("min", quantizer.get_min()).detach()
    maximum = stored.get("max", quantizer.get_max()).detach()
    tied_minimum, tied_maximum = shared_range(minimum, maximum, groups)
    entry = TiedEncoding(name, minimum.numel(), int(groups.max()) + 1)
    if torch.equal(tied_minimum, minimum) and torch.equal(tied_maximum, maximum):
        return entry, []
    if not all(quantizer.is_overwrite_allowed(key) for key in ("min", "max")):
        unit = "an orbit" if over == "orbits" else "a block"
        raise InvalidArgumentError(
            "sim",
            received=f"frozen encodings of {name} that differ within {unit}",
            expected="encodings that may be overwritten, or that are tied already",
            remedy="Call `allow_overwrite(True)` on its quantizer, or freeze it after `tie_encodings`.",
        )
    return entry, [(quantizer, tied_minimum, tied_maximum)]
