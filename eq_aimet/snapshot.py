"""A snapshot of a model: it is taken before an in-place change, and restored if the change fails."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["Snapshot"]


class Snapshot:
    """The state of a model: its modules, their attributes, and the values of all parameters and buffers.

    Args:
        model: The model. Taking the snapshot does not change it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self._modes = {name: module.training for module, name in self.names.items()}
        self._attributes: list[tuple[torch.nn.Module, dict[str, Any], dict[str, dict[Any, Any]]]] = []
        tensors: dict[int, torch.Tensor] = {}
        for module in self.names:
            held = dict(vars(module))
            # torch keeps children, parameters, buffers and hooks in dictionaries, and changes these in place.
            inner = {name: value.copy() for name, value in held.items() if isinstance(value, dict)}
            self._attributes.append((module, held, inner))
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    tensors[id(tensor)] = tensor
        # [tensor, its storage as it is now, a copy of the values]
        self._tensors = [
            (tensor, tensor.data, tensor.detach().clone(memory_format=torch.preserve_format))
            for tensor in tensors.values()
        ]

    def restore(self) -> None:
        """Restore the model in place: the same objects with the same values."""
        for module, held, inner in self._attributes:
            for name, content in inner.items():
                held[name].clear()
                held[name].update(content)
            vars(module).clear()
            vars(module).update(held)
        for tensor, data, values in self._tensors:
            tensor.data = data
            data.copy_(values)

    def restore_modes(self, model: torch.nn.Module) -> None:
        """Restore the training flag of each module of the changed model, in place.

        Modules are matched by their names. A module of a new name keeps its flag.
        """
        for name, module in model.named_modules():
            if name in self._modes:
                module.training = self._modes[name]
