"""Simulations that stay as they are: work is done on copies, and undone if it fails halfway."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from aimet_torch.quantization.base import QuantizerBase
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.snapshot import Snapshot

__all__ = ["copied_model", "copied_simulation", "unchanged_on_error"]

_EXPORTED_TYPES = (torch.float32, torch.float64)


@contextmanager
def unchanged_on_error(sim: QuantizationSimModel) -> Iterator[None]:
    """Put the simulation back as it was, in place, if the block raises an error or Ctrl-C ends it."""
    snapshot = Snapshot(sim.model)
    empty = [
        quantizer
        for quantizer in sim.model.modules()
        if isinstance(quantizer, QuantizerBase) and not quantizer.is_initialized()
    ]
    try:
        yield
    except BaseException:
        snapshot.restore()
        for quantizer in empty:
            # AIMET treats every range that was once written as an encoding, unless it is registered anew.
            for name, parameter in list(quantizer.named_parameters(recurse=False)):
                quantizer.register_quantization_parameter(name, parameter)
        raise


def copied_model(sim: QuantizationSimModel) -> torch.nn.Module:
    """Return a copy of the simulated model in eval mode. Running it changes nothing in `sim`.

    Raises:
        InvalidArgumentError: If the model can't be copied.
    """
    try:
        return copy.deepcopy(sim.model).eval()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidArgumentError(
            "sim",
            received=f"a simulation whose model can't be copied ({error})",
            expected="a model that supports copy.deepcopy",
            remedy="Detach tensors that the model holds outside of its parameters and buffers.",
        ) from error


def copied_simulation(sim: QuantizationSimModel) -> QuantizationSimModel:
    """Return a copy of the simulation in eval mode and float32, which AIMET's exporters may change.

    Raises:
        InvalidArgumentError: If the simulation computes in another type than float32 or float64, or can't be
            copied.
    """
    types = {tensor.dtype for tensor in sim.model.parameters() if tensor.is_floating_point()}
    unfit = sorted(str(dtype) for dtype in types - set(_EXPORTED_TYPES))
    if unfit:
        raise InvalidArgumentError(
            "sim",
            received=f"a simulation with parameters of {', '.join(unfit)}",
            expected="torch.float32, or torch.float64, which is converted",
            remedy="Call `sim.model.float()` first.",
        )
    twin = copy.copy(sim)
    twin.model = copied_model(sim).float()
    return twin
