"""What the tests of modules share: an example of a class, a network of one module, and random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from library_kits import Kit


class Network(torch.nn.Module):
    """A network of one equivariant module that takes and returns plain tensors, as users write them."""

    def __init__(self, kit: Kit, module: torch.nn.Module) -> None:
        super().__init__()
        self.kit = kit
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> Any:
        types = input_types(self.module)
        typed = [self.kit.enn.GeometricTensor(x, t) for x, t in zip(inputs, types, strict=True)]
        output = self.module(*typed)
        if isinstance(output, dict):
            return [output[label].tensor for label in sorted(output)]
        return output.tensor


def input_types(module: torch.nn.Module) -> tuple[Any, ...]:
    """Return the field types that `module` is called with."""
    in_type = module.in_type
    return tuple(in_type) if isinstance(in_type, (tuple, list)) else (in_type,)


@dataclass(frozen=True)
class Case:
    """One example of a class: its library, what it shows, how it is built, and the side of its grid."""

    kit: Kit
    cls: str
    variant: str
    build: Callable[[], torch.nn.Module]
    size: int = 9

    def __str__(self) -> str:
        return f"{self.kit}.{self.cls}[{self.variant}]"

    def network(self) -> torch.nn.Module:
        """Return a network of this module with random weights, in eval mode."""
        return randomise(Network(self.kit, self.build()))

    def inputs(self, batch: int = 2) -> tuple[torch.Tensor, ...]:
        """Return random inputs, the same for each call."""
        generator = torch.Generator().manual_seed(7)
        return tuple(
            torch.randn(batch, t.size, *t.gspace.dimensionality * [self.size], generator=generator)
            for t in input_types(self.build())
        )


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Return `module` in eval mode, with random weights and statistics in place of the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    module.train()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        buffers = dict(module.named_buffers())
        for name, buffer in buffers.items():
            if "running_var" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
            elif "running_mean" in name:
                mean = torch.randn(buffer.shape, generator=generator)
                # The mean of a field in training is an invariant vector; IID norms keep all its components.
                invariant = buffers.get(name.replace("running_mean", "avg"))
                buffer.copy_(mean if invariant is None else mean @ invariant.t())
        return module.eval()
