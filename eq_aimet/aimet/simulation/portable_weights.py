"""A simulation whose numbers every device can keep to: `make_portable`.

Without the VNNI instructions, onnxruntime multiplies pairs of u8 activations and s8 weights and adds the two
products in int16, where 255·127·2 does not fit. What is lost depends on which two products meet, and that
changes when the image is turned. With weights in [-64, 63] the sum stays below 2¹⁵ whatever the order.

Two more roundings of the device are done on the simulation, so that the two agree: biases are whole multiples
of input scale times weight scale, and no 8-bit pixel lies halfway between two integers.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation.device_rounding import inputs_with_ties, move_off_ties, round_biases
from eq_aimet.aimet.simulation.export_readiness import (
    check_encodings,
    checked_input,
    integer_weight,
    refuse_blockwise,
)
from eq_aimet.errors import InvalidArgumentError

__all__ = ["LimitedWeight", "PortableReport", "make_portable"]

logger = logging.getLogger(__name__)

SMALLEST, LARGEST = -64, 63


@dataclass(frozen=True)
class LimitedWeight:
    """One weight whose encodings were widened.

    Attributes:
        name: The weight's full name in the model, e.g. `stem.0.weight`.
        largest_before: The largest magnitude of its integers.
        largest_after: The same now.
        clipped: How many of its values lay outside the encoding's range and were moved to its ends, as
            the quantizer did before.
    """

    name: str
    largest_before: int
    largest_after: int
    clipped: int = 0


@dataclass(frozen=True)
class PortableReport:
    """What `make_portable` did.

    Attributes:
        limited: The weights with wider encodings.
        untouched: The names of the other quantized layers, each with the reason.
        rounded_biases: The names of the biases that were moved to the integers that the device adds.
        moved_inputs: The names of the inputs' quantizers whose ranges were widened by a few thousandths at
            most, because 8-bit pixels lay halfway between two integers.
    """

    limited: tuple[LimitedWeight, ...]
    untouched: tuple[tuple[str, str], ...]
    rounded_biases: tuple[str, ...] = ()
    moved_inputs: tuple[str, ...] = ()

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
        }


def make_portable(sim: QuantizationSimModel, dummy_input: Any = None) -> PortableReport:
    """Limit all integer weights to [-64, 63] in their int8 container, in place, so that no runtime saturates.

    The range of each weight encoding is doubled (times 127/63, so that its maximum becomes 63). That is done
    on the sim, so that what the sim says is what the device does: the weights lose one bit. For the same
    reason the range of an input that puts 8-bit pixels halfway between two integers is widened by a few
    thousandths at most, and with a `dummy_input` the biases become the whole multiples of input scale times
    weight scale that the device adds. Without it, sim and device differ by those roundings.

    What keeps to all that already is left alone; calling this again changes nothing. Either everything is
    changed or, on an error, nothing.

    Args:
        sim: AIMET's simulation model with its encodings computed, and tied where it carries blocks.
        dummy_input: What the model is called with, a tensor or a tuple of them, of which only the path
            through the network counts: the scale of a layer's input is known where it arrives.

    Returns:
        Which weights were limited, and which were left alone and why; which biases and inputs were changed.

    Raises:
        InvalidArgumentError: If `sim` isn't AIMET's, its encodings are not computed yet, a weight's encoding
            is asymmetric or blockwise, an encoding is frozen, or the model fails on `dummy_input`.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import make_portable
        >>> model, x = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), torch.rand(1, 1, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=x)  # doctest: +SKIP
        >>> sim.compute_encodings(lambda model: model(x))     # doctest: +SKIP
        >>> print(make_portable(sim, x))                      # doctest: +SKIP
        weight    before  after  clipped
        0.weight     127     63        0
        1 biases: rounded to the integers that the device adds
    """
    check_encodings(sim)
    limited: list[tuple[LimitedWeight, torch.Tensor, AffineQuantizerBase]] = []
    untouched: list[tuple[str, str]] = []
    for name, module in sim.model.named_modules():
        if not isinstance(module, BaseQuantizationMixin) or "weight" not in module.param_quantizers:
            continue
        quantizer, weight = module.param_quantizers["weight"], module.weight
        reason = _reason(quantizer)
        if reason:
            untouched.append((name, reason))
            continue
        refuse_blockwise(f"{name}.weight", quantizer)
        _check_symmetric(f"{name}.weight", quantizer)
        integers = integer_weight(weight, quantizer)
        if integers.min() >= SMALLEST and integers.max() <= LARGEST:
            untouched.append((name, f"its integers keep to [{SMALLEST}, {LARGEST}] already"))
            continue
        _check_not_frozen(f"{name}.weight", quantizer)
        limited.append((_limit(f"{name}.weight", weight, quantizer, integers), weight, quantizer))
    inputs = inputs_with_ties(sim)
    for name, quantizer in inputs.items():
        _check_not_frozen(name, quantizer)
    arguments = None if dummy_input is None else checked_input(sim.model, dummy_input)

    for _, weight, quantizer in limited:
        _widen(weight, quantizer)
    for quantizer in inputs.values():
        move_off_ties(quantizer)
    rounded = [] if arguments is None else _round_biases(sim, arguments)
    report = PortableReport(
        tuple(entry for entry, *_ in limited), tuple(untouched), tuple(rounded), tuple(inputs)
    )
    logger.info("Limited weights:\n%s", report)
    return report


def _reason(quantizer: Any) -> str:
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
    """Widen the encoding, and clip what it clipped before, which the wider one would let through."""
    scale = quantizer.get_scale()
    weight.clamp_(quantizer.get_min(), quantizer.get_max())
    wider = scale * (127 / LARGEST)
    quantizer.set_range(wider * quantizer.qmin, wider * quantizer.qmax)


@torch.no_grad()
def _round_biases(sim: QuantizationSimModel, arguments: tuple[Any, ...]) -> list[str]:
    """Round the biases in place and return the names of those that moved."""
    moved = []
    for name, rounded in round_biases(sim, arguments).items():
        bias = sim.model.get_parameter(name)
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


def _check_not_frozen(name: str, quantizer: AffineQuantizerBase) -> None:
    if not all(quantizer.is_overwrite_allowed(key) for key in ("min", "max")):
        raise InvalidArgumentError(
            "sim",
            received=f"a frozen encoding of {name}",
            expected="encodings that may be overwritten",
            remedy="Call `allow_overwrite(True)` on its quantizer, or freeze it after `make_portable`.",
        )
