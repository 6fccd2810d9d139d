"""A plain torch model out of an equivariant one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch

from eq_aimet.adapters.tracing import trace_plain_model
from eq_aimet.adapters.typed_inputs import wrap_inputs
from eq_aimet.errors import ExportError, InvalidArgumentError
from eq_aimet.plugins import plugin_manager
from eq_aimet.symmetry.orbits import remove_rounding

__all__ = ["export_model"]


def export_model(model: torch.nn.Module, dummy_input: Any) -> torch.nn.Module:
    """Return a new plain torch model that computes what the equivariant `model` does in eval mode.

    The model may be any `torch.nn.Module` built of e2cnn modules and ordinary torch. Each e2cnn module
    becomes torch's own or one of `eq_aimet.symmetry`'s few, residual additions become modules that AIMET can
    quantize, and the layers carry their rotation blocks (see `layer_blocks`). The result is in eval mode and
    shares no storage with `model`, which keeps its weights, its mode and its storage.

    Weights that the group ties have the same bits in the result, on every processor: each tagged weight and
    bias is projected onto its orbits. The projection changes no weight by more than rounding.

    Args:
        model: The equivariant network.
        dummy_input: A batch as `model` takes it, for example of shape (1, 3, 95, 95); a tuple of them for
            several inputs. On the model's device and of its dtype. An e2cnn `GeometricTensor` where the model
            takes one.

    Raises:
        InvalidArgumentError: If an argument is not as described, or the model does not run on `dummy_input`.
        ExportError: If a module has no exact plain equivalent, or the model's `forward` can't be traced.
        AsymmetryError: If weights that a layer's actions tie differ by more than rounding.

    Example:
        >>> import torch
        >>> from e2cnn import gspaces, nn
        >>> from eq_aimet import export_model, layer_blocks
        >>> space = gspaces.Rot2dOnR2(4)
        >>> image = nn.FieldType(space, [space.trivial_repr])
        >>> hidden = nn.FieldType(space, 2 * [space.regular_repr])
        >>> model = nn.SequentialModule(nn.R2Conv(image, hidden, 3), nn.ReLU(hidden))
        >>> plain = export_model(model, torch.randn(1, 1, 9, 9))
        >>> layer_blocks(getattr(plain, "0"))
        LayerBlocks(1×1 -> 2×4, 1 action)
    """
    _check_model(model)
    inputs = tuple(dummy_input) if isinstance(dummy_input, (tuple, list)) else (dummy_input,)
    for value in inputs:
        _check_input(model, value)
    _check_number(model, inputs)
    plain = trace_plain_model(model, wrap_inputs(model, inputs), _plain_module)
    remove_rounding(plain)  # of layers that a plugin or the user tagged; the adapters' own are exact by now
    return plain


def _plain_module(module: torch.nn.Module) -> torch.nn.Module | None:
    plain = plugin_manager().hook.eq_aimet_export_module(module=module)
    if plain is not None and not isinstance(plain, torch.nn.Module):
        raise ExportError(
            f"a plugin's `eq_aimet_export_module` returned a {type(plain).__name__} for a "
            f"{type(module).__name__}; return a torch.nn.Module, or None for a module that the plugin does "
            "not know."
        )
    return plain


def _check_model(model: torch.nn.Module) -> None:
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgumentError(
            "model",
            received=type(model).__name__,
            expected="a torch.nn.Module",
            remedy="Give the network itself, not its class, state dict or path.",
        )
    for name, value in chain(model.named_parameters(), model.named_buffers()):
        if not value.is_floating_point():
            continue
        if value.dtype not in (torch.float32, torch.float64):
            raise InvalidArgumentError(
                "model",
                received=f"`{name}` in {value.dtype}",
                expected="weights in float32 or float64",
                remedy="Export `model.float()`; AIMET simulates lower precision from there.",
            )
        if not torch.isfinite(value).all():
            raise InvalidArgumentError(
                "model",
                received=f"NaN or infinite values in `{name}`",
                expected="finite weights",
                remedy="Load the last checkpoint from before the training diverged.",
            )


def _check_input(model: torch.nn.Module, value: Any) -> None:
    tensor = getattr(value, "tensor", value)  # of a typed tensor
    if not isinstance(tensor, torch.Tensor):
        raise InvalidArgumentError(
            "dummy_input",
            received=type(value).__name__,
            expected="a tensor or a tuple of tensors",
            remedy="Give one batch as the model takes it.",
        )
    weight = next((value for value in model.parameters() if value.is_floating_point()), None)
    if weight is None:
        return
    if tensor.device != weight.device:
        raise InvalidArgumentError(
            "dummy_input",
            received=f"a tensor on {tensor.device}",
            expected=f"one on {weight.device}, where the model is",
            remedy=f"Give `dummy_input.to({str(weight.device)!r})`.",
        )
    if tensor.is_floating_point() and tensor.dtype != weight.dtype:
        raise InvalidArgumentError(
            "dummy_input",
            received=f"a tensor of {tensor.dtype}",
            expected=f"{weight.dtype}, as the model's weights are",
            remedy=f"Give `dummy_input.to({weight.dtype})`.",
        )


def _check_number(model: torch.nn.Module, inputs: Sequence[Any]) -> None:
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError as error:
        parameters = ", ".join(inspect.signature(model.forward).parameters)
        raise InvalidArgumentError(
            "dummy_input",
            received=f"{len(inputs)} inputs",
            expected=f"those of the model's `forward({parameters})` ({error})",
            remedy="Give a tuple with one tensor for each input, in this order.",
        ) from error
