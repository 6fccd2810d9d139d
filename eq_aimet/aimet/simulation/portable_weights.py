"""The roundings of a device, put into the simulation, and weights on which no runtime saturates.

`eq_aimet.deploy.onnx.saturation` explains why integers in [-64, 63] do not saturate. Two more changes make
simulation and device agree: biases become whole multiples of input scale times weight scale, and no 8-bit
pixel lies halfway between two integers.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation.bias_scales import RaisedScale, raise_weight_scales
from eq_aimet.aimet.simulation.device_rounding import inputs_with_ties, move_off_ties, round_biases
from eq_aimet.aimet.simulation.dummy_input import checked_input
from eq_aimet.aimet.simulation.export_readiness import (
    check_encodings,
    check_not_frozen,
    integer_weight,
    refuse_blockwise,
)
from eq_aimet.aimet.simulation.unchanged import copied_model, unchanged_on_error
from eq_aimet.deploy.onnx.saturation import LARGEST, SMALLEST
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.layers import is_layer

__all__ = ["LimitedWeight", "PortableReport", "make_portable"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LimitedWeight:
    """One weight whose encodings were widened.

    Attributes:
        name: The weight's full name in the model, e.g. `stem.0.weight`.
        largest_before: The largest magnitude of the weight's integers before the change.
        largest_after: The largest magnitude of the weight's integers after the change.
        clipped: The number of weight values outside the old range of the encoding. They were moved to the
            ends of the old range, as the quantizer did before.
    """

    name: str
    largest_before: int
    largest_after: int
    clipped: int = 0


@dataclass(frozen=True)
class PortableReport:
    """The changes that `make_portable` made.

    Attributes:
        limited: The weights with wider encodings.
        untouched: The names of the other quantized layers, each with the reason.
        rounded_biases: The names of the biases that were moved to the integers that the device adds.
        moved_inputs: The names of the inputs' quantizers whose ranges were widened by a few thousandths at
            most, because 8-bit pixels lay halfway between two integers.
        raised_scales: The weights whose scale was raised so that the biases fit into int32.
    """

    limited: tuple[LimitedWeight, ...]
    untouched: tuple[tuple[str, str], ...]
    rounded_biases: tuple[str, ...] = ()
    moved_inputs: tuple[str, ...] = ()
    raised_scales: tuple[RaisedScale, ...] = ()

    def __str__(self) -> str:
        names = [entry.name for entry in self.limited]
        width = max([len("weight"), *map(len, names)])
        lines = [f"{'weight':<{width}}  before  after  clipped"]
        lines += [
            f"{entry.name:<{width}}  {entry.largest_before:>6}  {entry.largest_after:>5}  {entry.clipped:>7}"
            for entry in self.limited
        ]
        lines += [f"{name}: untouched, {reason}" for name, reason in self.untouched]
        lines += [f"{name}: widened, 8-bit pixels lay halfway between integers" for name in self.moved_inputs]
        lines += [
            f"{entry.name}: {entry.channels} scales raised, up to {entry.factor:.3g}×, so that the biases "
            "fit into int32"
            for entry in self.raised_scales
        ]
        if self.rounded_biases:
            lines.append(f"{len(self.rounded_biases)} biases: rounded to the integers that the device adds")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        return {
            "limited": [asdict(entry) for entry in self.limited],
            "untouched": dict(self.untouched),
            "rounded_biases": list(self.rounded_biases),
            "moved_inputs": list(self.moved_inputs),
            "raised_scales": [asdict(entry) for entry in self.raised_scales],
        }


def make_portable(sim: QuantizationSimModel, dummy_input: Any = None) -> PortableReport:
    """Limit all integer weights to [-64, 63] in their int8 container, in place, so that no runtime saturates.

    The range of each weight encoding is multiplied by 127/63, so that its largest integer becomes 63. The
    weights lose one bit. The function changes the sim and not only the file, so that simulation and device
    agree. For the same reason the function makes three more changes to the sim:

    - An input whose range puts 8-bit pixels halfway between two integers gets a range that is larger by a few
      thousandths at most.
    - With a `dummy_input`, the biases become the whole multiples of input scale times weight scale that the
      device adds.
    - With a `dummy_input`, the weight scale of a channel is raised if its bias would not fit into int32. That
      happens if all weights of the channel are zero: a pruned channel, or a class that reads nothing.

    Weights that are within the limits already stay unchanged, so a second call changes nothing. If the
    function raises an error, or Ctrl-C ends it, the sim stays as it was before.

    Args:
        sim: AIMET's simulation model with its encodings computed, and tied where it carries blocks.
        dummy_input: An input of the model: a tensor, a tuple of tensors, or a dictionary of tensors by name.
            It shows the scale of each layer's input. Without it, sim and device differ by the rounding of
            the biases.

    Returns:
        The weights that were limited, the layers that were left alone, each with the reason, and the biases,
        scales and inputs that were changed.

    Raises:
        InvalidArgumentError: If `sim` isn't AIMET's, its encodings are not computed yet, the encoding of a
            convolution's or linear layer's weight is asymmetric or blockwise, an encoding is frozen, or the
            model fails on `dummy_input`.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import make_portable
        >>> model, x = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)).eval(), torch.rand(1, 1, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=x)
        >>> sim.compute_encodings(lambda model: model(x))
        >>> report = make_portable(sim, x)
        >>> [(entry.name, entry.largest_after) for entry in report.limited], report.rounded_biases
        ([('0.weight', 63)], ('0.bias',))
    """
    check_encodings(sim)
    limited, untouched = _find_limits(sim.model)
    ties = inputs_with_ties(sim)
    for name, quantizer in ties.items():
        check_not_frozen(name, quantizer)
    inputs = None if dummy_input is None else checked_input(copied_model(sim), dummy_input)

    raised: tuple[RaisedScale, ...] = ()
    rounded: list[str] = []
    with unchanged_on_error(sim):
        for _, weight, quantizer in limited:
            _widen(weight, quantizer)
        for quantizer in ties.values():
            move_off_ties(quantizer)
        if inputs is not None:
            raised = raise_weight_scales(sim.model, copied_model(sim), inputs)
            rounded = _round_biases(sim.model, copied_model(sim), inputs)
    report = PortableReport(
        tuple(entry for entry, *_ in limited), tuple(untouched), tuple(rounded), tuple(ties), raised
    )
    logger.info("Limited weights:\n%s", report)
    return report


_Limit = tuple[LimitedWeight, torch.Tensor, AffineQuantizerBase]


def _find_limits(model: torch.nn.Module) -> tuple[list[_Limit], list[tuple[str, str]]]:
    """Return the weights to limit, and the other layers, each with the reason to leave it unchanged."""
    limited: list[_Limit] = []
    untouched: list[tuple[str, str]] = []
    for name, module in model.named_modules():
        if not isinstance(module, BaseQuantizationMixin) or "weight" not in module.param_quantizers:
            continue
        quantizer, weight = module.param_quantizers["weight"], module.weight
        reason = _reason(module, quantizer)
        if reason:
            untouched.append((name, reason))
            continue
        refuse_blockwise(f"{name}.weight", quantizer)
        _check_symmetric(f"{name}.weight", quantizer)
        integers = integer_weight(weight, quantizer)
        if integers.min() >= SMALLEST and integers.max() <= LARGEST:
            untouched.append((name, f"its integers keep to [{SMALLEST}, {LARGEST}] already"))
            continue
        check_not_frozen(f"{name}.weight", quantizer)
        limited.append((_limit(f"{name}.weight", weight, quantizer, integers), weight, quantizer))
    return limited, untouched


def _reason(module: torch.nn.Module, quantizer: Any) -> str:
    if not is_layer(module):
        return "only convolutions and linear layers add up products of 8-bit integers"
    if quantizer is None:
        return "its weight is not quantized"
    if not isinstance(quantizer, AffineQuantizerBase):
        return "its weight is not quantized to integers"
    if quantizer.bitwidth < 8:
        return f"{quantizer.bitwidth}-bit integers keep to the limits"
    if quantizer.bitwidth > 8:
        return f"{quantizer.bitwidth}-bit weights do not go through 8-bit kernels"
    return ""


def _limit(
    name: str, weight: torch.Tensor, quantizer: AffineQuantizerBase, integers: torch.Tensor
) -> LimitedWeight:
    scale = quantizer.get_scale()
    outside = (weight > quantizer.get_max() + scale / 2) | (weight < quantizer.get_min() - scale / 2)
    before = int(integers.abs().max())
    after = round(min(before, 127) * LARGEST / 127)
    return LimitedWeight(name, before, after, int(outside.sum()))


@torch.no_grad()
def _widen(weight: torch.Tensor, quantizer: AffineQuantizerBase) -> None:
    """Widen the encoding, and clip the weight to the old range, because the wider range clips less."""
    scale = quantizer.get_scale()
    weight.clamp_(quantizer.get_min(), quantizer.get_max())
    wider = scale * (127 / LARGEST)
    quantizer.set_range(wider * quantizer.qmin, wider * quantizer.qmax)


@torch.no_grad()
def _round_biases(model: torch.nn.Module, running_copy: torch.nn.Module, inputs: Any) -> list[str]:
    """Round the biases in place and return the names of the biases that changed."""
    moved = []
    for name, rounded in round_biases(running_copy, inputs).items():
        bias = model.get_parameter(name)
        if not torch.equal(bias, rounded):
            bias.copy_(rounded)
            moved.append(name)
    return moved


def _check_symmetric(name: str, quantizer: AffineQuantizerBase) -> None:
    if not quantizer.symmetric or bool(quantizer.get_offset().any()):
        raise InvalidArgumentError(
            "sim",
            received=f"an asymmetric encoding of {name}",
            expected="symmetric encodings of weights",
            remedy="Set `is_symmetric` for params in AIMET's configuration file, as its default one does.",
        )
