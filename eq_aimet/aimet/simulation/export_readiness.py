"""Checks of a simulation before deployment: encodings computed and tied, weights symmetric."""

from __future__ import annotations

from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase, GroupedBlockQuantizeDequantize
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.orbits import orbit_spreads, weight_orbits
from eq_aimet.symmetry.shared_encodings import encoding_groups

__all__ = [
    "check_encodings",
    "check_not_frozen",
    "check_simulation",
    "check_symmetric",
    "check_tied",
    "integer_weight",
    "refuse_blockwise",
]


def check_simulation(sim: Any) -> None:
    """Check that `sim` is AIMET's.

    Raises:
        InvalidArgumentError: If `sim` is not AIMET's.
    """
    if not isinstance(sim, QuantizationSimModel):
        raise InvalidArgumentError(
            "sim",
            received=f"a {type(sim).__name__}",
            expected="AIMET's QuantizationSimModel",
            remedy="Build it with `QuantizationSimModel(model, dummy_input=x)`; don't pass its `.model`.",
        )


def check_encodings(sim: Any) -> None:
    """Check that `sim` is AIMET's and has its encodings.

    Raises:
        InvalidArgumentError: If `sim` is not AIMET's, or a quantizer has no encoding yet.
    """
    check_simulation(sim)
    for name, module in sim.model.named_modules():
        if isinstance(module, QuantizerBase) and not module.is_initialized():
            raise InvalidArgumentError(
                "sim",
                received=f"no encoding of {name}",
                expected="encodings that are computed",
                remedy="Call `sim.compute_encodings(forward)` first.",
            )


def integer_weight(weight: torch.Tensor, quantizer: AffineQuantizerBase) -> torch.Tensor:
    """Return the integers that the device stores, in the weight's shape and floating-point type."""
    with torch.no_grad():
        integers = torch.round(weight / quantizer.get_scale() - quantizer.get_offset())
        return integers.clamp(quantizer.qmin, quantizer.qmax)


def check_tied(sim: QuantizationSimModel) -> None:
    """Check that the channels of each orbit have one weight encoding.

    Raises:
        InvalidArgumentError: If the encodings of a layer differ within an orbit.
    """
    for name, module, blocks, quantizer in _quantized_layers(sim):
        scales = quantizer.get_scale().detach()
        if scales.numel() == 1 or not blocks.actions:
            continue
        refuse_blockwise(f"{name}.weight", quantizer)
        groups = encoding_groups(tuple(scales.shape), weight_orbits(module, blocks))
        spread = float(orbit_spreads(scales, groups).max() / scales.max())
        if spread > 0:
            raise InvalidArgumentError(
                "sim",
                received=f"weight encodings of `{name}` that differ within an orbit of channels, by up to "
                f"{spread:.2%} of the largest scale",
                expected="one encoding per orbit",
                remedy="Call `tie_encodings(sim)` before the export.",
            )


def check_symmetric(sim: QuantizationSimModel) -> None:
    """Check that the integer weights of each orbit are equal.

    Raises:
        InvalidArgumentError: If the integer weights of a layer differ within an orbit.
    """
    for name, module, blocks, quantizer in _quantized_layers(sim):
        weight = module.get_parameter("weight")
        if not blocks.actions or weight.dim() < 2:
            continue
        integers = integer_weight(weight, quantizer)
        orbits = weight_orbits(module, blocks)
        spreads = orbit_spreads(integers, orbits)
        if spreads.any():
            weights = orbit_spreads(weight, orbits).max() / weight.detach().abs().max()
            raise InvalidArgumentError(
                "sim",
                received=f"a weight of `{name}` that is not symmetric: {int((spreads > 0).sum())} of "
                f"{len(spreads)} orbits hold different integers, up to {int(spreads.max())} steps apart "
                f"(the weights differ by {float(weights):.2e} of the largest)",
                expected="equal integers within each orbit",
                remedy="Call `symmetrize(model)` before the simulation is built. Train inside "
                "`tie_parameters`, and use AdaRound inside `equivariant_hooks`.",
            )


def check_not_frozen(name: str, quantizer: AffineQuantizerBase) -> None:
    """Check that an encoding may be overwritten.

    Raises:
        InvalidArgumentError: If it is frozen.
    """
    if not all(quantizer.is_overwrite_allowed(key) for key in ("min", "max")):
        raise InvalidArgumentError(
            "sim",
            received=f"a frozen encoding of {name}",
            expected="encodings that may be overwritten",
            remedy="Call `allow_overwrite(True)` on its quantizer, or freeze it after this step.",
        )


def refuse_blockwise(name: str, quantizer: AffineQuantizerBase) -> None:
    """Raise if the encodings divide a weight into AIMET's blocks, because these blocks cut through fields."""
    if isinstance(quantizer, GroupedBlockQuantizeDequantize) or quantizer.block_size is not None:
        raise InvalidArgumentError(
            "sim",
            received=f"blockwise encodings of {name}",
            expected="one encoding per output channel or per tensor",
            remedy="Use AIMET's per-channel or per-tensor configuration for this layer.",
        )


def _quantized_layers(
    sim: QuantizationSimModel,
) -> list[tuple[str, torch.nn.Module, LayerBlocks, AffineQuantizerBase]]:
    """Return the layers with blocks whose weight is quantized to integers."""
    found = []
    for name, module in sim.model.named_modules():
        blocks = layer_blocks(module)
        if blocks is None or not isinstance(module, BaseQuantizationMixin):
            continue
        quantizer = dict(module.param_quantizers.items()).get("weight")
        if isinstance(quantizer, AffineQuantizerBase):
            found.append((name, module, blocks, quantizer))
    return found
