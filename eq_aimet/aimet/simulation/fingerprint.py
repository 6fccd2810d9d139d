"""The fingerprint of a simulation; it shows whether the simulation changed since a file was exported."""

from __future__ import annotations

import hashlib

import torch
from aimet_torch.quantsim import QuantizationSimModel

__all__ = ["fingerprint"]


def fingerprint(sim: QuantizationSimModel) -> str:
    """Return a checksum of all weights, biases, buffers and encodings, in float32.

    Args:
        sim: A copy that `copied_simulation` made.
    """
    digest = hashlib.sha256()
    for name, tensor in (*sim.model.named_parameters(), *sim.model.named_buffers()):
        plain = tensor.detach().as_subclass(torch.Tensor).cpu()
        digest.update(f"{name} {tuple(plain.shape)}".encode())
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()
