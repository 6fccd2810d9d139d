"""State dicts that load whatever mode they were saved in."""

from __future__ import annotations

from typing import Any

import torch
from e2cnn.nn import R2Conv

__all__ = ["keep_weights_only"]

# What R2Conv derives from its weights: present in eval mode, absent in training.
_DERIVED = ("filter", "expanded_bias")


def keep_weights_only(model: torch.nn.Module) -> None:
    """Works in place: state dicts of `model` will hold its convolutions' weights, not the filters.

    e2cnn's `R2Conv` has the buffers `filter` and `expanded_bias` in eval mode only, so that a checkpoint
    taken in one mode is refused in the other, and one with a `filter` that doesn't fit its weights loads
    without a word. After this call either mode saves the same keys, loads both kinds of checkpoint
    (e2cnn's own included), and a model in eval mode rebuilds its filters from the loaded weights.

    Args:
        model: any module with `e2cnn.nn.R2Conv`s in it. Calling it twice is the same as once.

    >>> from e2cnn import gspaces, nn
    >>> gspace = gspaces.Rot2dOnR2(4)
    >>> regular = nn.FieldType(gspace, [gspace.regular_repr])
    >>> conv = nn.R2Conv(regular, regular, kernel_size=3).eval()
    >>> keep_weights_only(conv)
    >>> "filter" in conv.state_dict(), "weights" in conv.state_dict()
    (False, True)
    """
    for module in model.modules():
        if isinstance(module, R2Conv) and not _is_hooked(module):
            module.register_state_dict_post_hook(_drop_derived)
            module.register_load_state_dict_pre_hook(_stand_in_for_derived)
            module.register_load_state_dict_post_hook(_rebuild_derived)


def _is_hooked(module: torch.nn.Module) -> bool:
    return _rebuild_derived in module._load_state_dict_post_hooks.values()


def _drop_derived(module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _DERIVED:
        state.pop(prefix + name, None)


def _stand_in_for_derived(
    module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any, *reports: Any
) -> None:
    """Give `load_state_dict` exactly this mode's buffers; what it copies is replaced afterwards."""
    for name in _DERIVED:
        state.pop(prefix + name, None)
        if module._buffers.get(name) is not None:
            state[prefix + name] = module._buffers[name]


def _rebuild_derived(module: R2Conv, incompatible: Any) -> None:
    if module.training:
        return
    with torch.no_grad():
        derived = module.expand_parameters()
    for name, value in zip(_DERIVED, derived, strict=True):
        if value is not None:
            module.register_buffer(name, value)
