"""The export of an equivariant model to a plain torch model."""

from __future__ import annotations

from threading import RLock
from typing import Any

import torch

from eq_aimet.adapters.tracing.argument_checks import check_model, checked_inputs
from eq_aimet.adapters.tracing.inputs import bind_inputs
from eq_aimet.adapters.tracing.plain_model import trace_plain_model
from eq_aimet.adapters.tracing.wrappers import unwrapped
from eq_aimet.plugins import plain_module
from eq_aimet.symmetry.orbits import remove_rounding

__all__ = ["export_model"]

# While one thread traces, `torch.fx` and the tracer replace functions of torch for the whole process.
_TRACING_LOCK = RLock()


def export_model(model: torch.nn.Module, dummy_input: Any) -> torch.nn.Module:
    """Return a new plain torch model that computes what the equivariant `model` does in eval mode.

    The model may be any `torch.nn.Module` that consists of modules of e2cnn or escnn and ordinary torch. Each
    equivariant module becomes a module of torch or of `eq_aimet.plain`. Residual additions become modules
    that AIMET can quantize. The layers carry their rotation blocks (see `layer_blocks`). The result is in
    eval mode and shares no storage with `model`. `model` keeps its weights, its mode and its attributes.

    The result returns the outputs of `model` in the same tuples, lists and dictionaries, with plain tensors
    in place of typed ones. Forward hooks become part of the result. The wrappers `torch.compile`,
    `DataParallel` and `DistributedDataParallel` are removed. A module without weights that runs several
    times, for example the only ReLU of a residual block, becomes one module for each run, since AIMET
    quantizes only one run.

    Weights that the group ties have the same bits in the result, on every processor: each tagged weight and
    bias is projected onto its orbits. The projection changes no weight by more than rounding.

    Args:
        model: The equivariant network.
        dummy_input: A batch that `model` accepts, for example of shape (1, 3, 95, 95). Give a tuple with one
            entry for each positional input, or a dictionary with one entry for each keyword. The batch is on
            the model's device and has the model's dtype. If the model takes a `GeometricTensor`, give a
            `GeometricTensor`.

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
    check_model(model)
    inner = unwrapped(model)
    with _TRACING_LOCK:
        inputs = bind_inputs(inner, checked_inputs(inner, dummy_input))
        plain = trace_plain_model(inner, inputs, plain_module)
    remove_rounding(plain)  # in layers that a plugin or the user tagged; the adapters' are exact
    return plain
