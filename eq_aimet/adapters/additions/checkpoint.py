"""State dicts that load in training mode and in eval mode, whichever mode saved them."""

from __future__ import annotations

import copy
from typing import Any

import torch

from eq_aimet.adapters.libraries import library_of

__all__ = ["keep_weights_only"]

# The buffers that R2Conv derives from its weights. They exist in eval mode only.
_DERIVED = ("filter", "expanded_bias")
_BASIS = "sampled_basis"


def keep_weights_only(model: torch.nn.Module) -> None:
    """Keep the weights of convolutions, but not their filters, in the state dicts of `model`; works in place.

    The `R2Conv` of e2cnn and escnn has the buffers `filter` and `expanded_bias` in eval mode only. So a
    model in one mode refuses a checkpoint from the other mode. And a checkpoint loads without a warning even
    if its `filter` does not fit its weights. After this call, both modes save the same keys. Both modes load
    both kinds of checkpoint, including the library's own. A model in eval mode rebuilds its filters from the
    loaded weights. A checkpoint with another basis, for example from the other library, changes only this
    model.

    Args:
        model: Any module that contains convolutions of a library. A second call on it changes nothing.

    Example:
        >>> from eq_aimet.adapters.e2cnn import enn, gspaces
        >>> gspace = gspaces.Rot2dOnR2(4)
        >>> regular = enn.FieldType(gspace, [gspace.regular_repr])
        >>> conv = enn.R2Conv(regular, regular, kernel_size=3).eval()
        >>> keep_weights_only(conv)
        >>> "filter" in conv.state_dict(), "weights" in conv.state_dict()
        (False, True)
    """
    for module in model.modules():
        if _is_convolution(module) and not _is_hooked(module):
            module.register_state_dict_post_hook(_drop_derived)
            module.register_load_state_dict_pre_hook(_stand_in_for_derived)
            module.register_load_state_dict_post_hook(_rebuild_derived)


def _is_convolution(module: torch.nn.Module) -> bool:
    return library_of(module) is not None and any(cls.__name__ == "R2Conv" for cls in type(module).__mro__)


def _is_hooked(module: torch.nn.Module) -> bool:
    return _rebuild_derived in module._load_state_dict_post_hooks.values()


def _drop_derived(module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in _DERIVED:
        state.pop(prefix + name, None)


def _own_bases(module: torch.nn.Module, state: dict[str, Any], prefix: str) -> None:
    """Give `module` bases of its own if the bases in the state dict differ.

    A state dict holds the bases beside their coefficients. e2cnn and escnn use the same names for them. A
    library shares one basis between all layers of a process, so loading another basis would change all
    layers.
    """
    for name, expansion in list(module.named_modules()):
        basis = expansion._buffers.get(_BASIS)
        loaded = state.get(f"{prefix}{name}.{_BASIS}")
        if basis is None or not isinstance(loaded, torch.Tensor) or loaded.shape != basis.shape:
            continue
        if not torch.equal(loaded.to(basis), basis):
            own = copy.copy(expansion)
            own._buffers = {**expansion._buffers, _BASIS: basis.clone()}
            parent, _, leaf = name.rpartition(".")
            module.get_submodule(parent)._modules[leaf] = own


def _stand_in_for_derived(
    module: torch.nn.Module, state: dict[str, Any], prefix: str, metadata: Any, *reports: Any
) -> None:
    """Give `load_state_dict` exactly this mode's buffers; `_rebuild_derived` replaces them afterwards."""
    _own_bases(module, state, prefix)
    for name in _DERIVED:
        state.pop(prefix + name, None)
        if module._buffers.get(name) is not None:
            state[prefix + name] = module._buffers[name]


def _rebuild_derived(module: Any, incompatible: Any) -> None:
    if module.training:
        return
    with torch.no_grad():
        derived = module.expand_parameters()
    for name, value in zip(_DERIVED, derived, strict=True):
        if value is not None:
            module.register_buffer(name, value)
