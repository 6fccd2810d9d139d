"""Replacements of AIMET's rounding functions while the hooks are installed, one for each patched name.

AIMET's functions stand on the left, the replacements of this package on the right:

    Adaround.apply_adaround
     └─ Adaround._apply_adaround ─────────────── adarounding: checks that the weights are tied
         ├─ Adaround._get_adaround_wrapper ───── wrapping: one rounding variable per orbit
         └─ AdaroundLoss.compute_round_loss ──── rounding_loss: each orbit counts with its members
    apply_seq_mse
     └─ SequentialMse.apply_seq_mse ──────────── searching: checks that the weights are tied
         └─ SequentialMse.optimize_module ────── searching_layer: finds which channels share a scale
             └─ SequentialMse._compute_loss ──── summing_loss: one loss per orbit of channels

Each function here takes AIMET's original and returns its replacement. If no hooks are active in the running
thread, or a layer has no actions, the replacement only calls the original.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

import torch
from aimet_torch._base.adaround.adaround_loss import AdaroundLoss
from aimet_torch.adaround.adaround_weight import Adaround
from aimet_torch.seq_mse import SequentialMse

from eq_aimet.aimet.equalization.active_run import Settings, current_settings, with_settings
from eq_aimet.aimet.rounding.tied_adaround import TiedAdaroundWrapper, rounding_orbits
from eq_aimet.aimet.rounding.tied_layers import check_still_tied, has_ties
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.orbits import orbit_means, weight_orbits
from eq_aimet.symmetry.shared_encodings import encoding_groups

__all__ = ["changes_of_rounding"]

# The groups of a layer's channels that share a scale, while AIMET searches the scales of this layer.
_SHARED: ContextVar[torch.Tensor | None] = ContextVar("shared_scales", default=None)

# Features that treat each weight separately: the module, the class, a method that runs in every call and gets
# the model or the simulation, and the feature's name.
_REFUSED = (
    ("aimet_torch.gptvq.gptvq_weight", "GPTVQ", "_get_candidate_module_name_set", "GPTVQ"),
    ("aimet_torch.adascale.adascale_optimizer", "AdaScale", "_get_blocks", "AdaScale"),
    ("aimet_torch.experimental.omniquant.omniquant_optimizer", "Omniquant", "_apply_omniquant", "OmniQuant"),
    ("aimet_torch.spinquant.spinquant_optimizer", "SpinQuant", "_screen_for_target_type", "SpinQuant"),
)


def changes_of_rounding() -> list[tuple[Any, str, Any]]:
    """Return the changes that tie AIMET's rounding: owner, name and new value of each attribute."""
    patched: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (Adaround, "_apply_adaround", adarounding),
        (Adaround, "_get_adaround_wrapper", wrapping),
        (AdaroundLoss, "compute_round_loss", rounding_loss),
        (SequentialMse, "apply_seq_mse", searching),
        (SequentialMse, "optimize_module", searching_layer),
        (SequentialMse, "_compute_loss", summing_loss),
    ]
    for module, owner, name, feature in _REFUSED:
        try:
            found = getattr(import_module(module), owner)
        except ImportError:  # these features need libraries for language models, which may not be installed
            continue
        patched.append((found, name, partial(refusing, feature)))
    return [(owner, name, replace(getattr(owner, name))) for owner, name, replace in patched]


def _as_classmethod(replacement: Callable[..., Any]) -> Any:
    """Return a classmethod that drops the class argument, because AIMET's original is bound already."""
    return classmethod(lambda cls, *arguments, **named: replacement(*arguments, **named))


def adarounding(original: Callable[..., Any]) -> Any:
    """Return AdaRound's main step, which refuses a model whose weights are no longer tied."""

    @with_settings(original)
    def apply(settings: Settings, quant_sim: Any, model: torch.nn.Module, *others: Any, **named: Any) -> Any:
        check_still_tied("model", model, "model")
        return original(quant_sim, model, *others, **named)

    return _as_classmethod(apply)


def wrapping(original: Callable[..., Any]) -> Any:
    """Return the choice of AdaRound's wrapper: with one variable per orbit for a layer with ties."""

    @with_settings(original)
    def get_wrapper(settings: Settings, quant_module: Any) -> Any:
        orbits = rounding_orbits(quant_module)
        return original(quant_module) if orbits is None else TiedAdaroundWrapper(quant_module, orbits)

    return staticmethod(get_wrapper)


def rounding_loss(original: Callable[..., Any]) -> Any:
    """Return AdaRound's regularization, in which each orbit counts with all its members."""

    @with_settings(original)
    def compute(settings: Settings, alpha: torch.Tensor, *others: Any, **named: Any) -> Any:
        orbits = getattr(alpha, "eq_aimet_orbits", None)
        return original(alpha if orbits is None else alpha[orbits.to(alpha.device)], *others, **named)

    return _as_classmethod(compute)


def searching(original: Callable[..., Any]) -> Any:
    """Return SeqMSE's main step, which refuses a simulation whose weights are no longer tied."""

    @with_settings(original)
    def apply(settings: Settings, model: torch.nn.Module, sim: Any, *others: Any, **named: Any) -> Any:
        check_still_tied("sim", sim.model, "sim.model")
        return original(model, sim, *others, **named)

    return _as_classmethod(apply)


def searching_layer(original: Callable[..., Any]) -> Any:
    """Return SeqMSE's search for one layer, which knows the channels that share a scale."""

    def optimize(quant_module: Any, *others: Any, **named: Any) -> Any:
        if current_settings() is None:
            return original(quant_module, *others, **named)
        token = _SHARED.set(_shared_scales(quant_module))
        try:
            return original(quant_module, *others, **named)
        finally:
            _SHARED.reset(token)

    return _as_classmethod(optimize)


def summing_loss(original: Callable[..., Any]) -> Any:
    """Return SeqMSE's loss of each channel and block, averaged over all that share a scale."""

    def compute(*arguments: Any, **named: Any) -> Any:
        losses = original(*arguments, **named)
        shared = _SHARED.get()
        return losses if shared is None else orbit_means(losses, shared.reshape(losses.shape))

    return _as_classmethod(compute)


def _shared_scales(quant_module: Any) -> torch.Tensor | None:
    """Return the group of the loss of each channel and block; `None` if no channels share a scale."""
    blocks, weight = layer_blocks(quant_module), quant_module.weight
    if blocks is None or not blocks.actions:
        return None
    quantizer = quant_module.param_quantizers["weight"]
    parts = 1 if quantizer.block_size is None else quantizer.shape[1]
    losses = (weight.shape[0], parts, *[1] * (weight.dim() - 2))
    return encoding_groups(losses, weight_orbits(quant_module, blocks))


def refusing(feature: str, original: Callable[..., Any]) -> Any:
    """Return a step of a feature that cannot keep ties, which refuses a model with ties by name."""

    @with_settings(original)
    def refuse(settings: Settings, *arguments: Any, **named: Any) -> Any:
        for value in (*arguments, *named.values()):
            model = getattr(value, "model", value)
            if isinstance(model, torch.nn.Module) and has_ties(model):
                raise InvalidArgumentError(
                    "model",
                    received=f"a model whose weights are tied, for {feature}",
                    expected=f"AdaRound or SeqMSE, or a model without ties: {feature} treats each weight by "
                    "itself, which would break the symmetry",
                    remedy=f"Call {feature} outside of `equivariant_hooks` if the model need not stay "
                    "equivariant.",
                )
        return original(*arguments, **named)

    return _as_classmethod(refuse)
