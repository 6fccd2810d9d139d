"""Outputs that fit the statistics of a layer, passed to its quantizer in place of the real outputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin

from eq_aimet.aimet.output_statistics import OutputStatistics
from eq_aimet.aimet.simulation.sampling import farthest_output, linear_bound, normal_output
from eq_aimet.symmetry.layers import is_layer

__all__ = ["PASSES", "MadeUpOutputs"]

# The forward passes. The passes of highest and lowest values give the ends of the ranges behind sums, pooling
# and activations. The two passes with bounds also give layers without statistics the largest outputs that
# their inputs allow. The random passes serve modules that are not monotonic, and AIMET's schemes that read
# the whole distribution and not only its ends.
PASSES = ("highest", "lowest", "highest bound", "lowest bound", "random", "random")


class MadeUpOutputs:
    """Passes made-up outputs of layers to their output quantizers while the context is entered.

    Attributes:
        number: The number of the forward pass.
        kind: The kind of outputs in this pass, one of `PASSES`.
        bounded: The convolutions and linear layers without statistics.
    """

    def __init__(
        self, model: torch.nn.Module, statistics: dict[torch.nn.Module, OutputStatistics], limit: float
    ) -> None:
        self.number, self.kind = 0, PASSES[0]
        self.statistics = statistics
        self.limit = limit
        self.bounded = tuple(
            module
            for module in model.modules()
            if isinstance(module, BaseQuantizationMixin) and is_layer(module) and module not in statistics
        )
        self._order = {module: number for number, module in enumerate(statistics)}
        self._seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        self._undos = ExitStack()

    def __enter__(self) -> MadeUpOutputs:
        for module in (*self.statistics, *self.bounded):
            quantizers: Any = module.output_quantizers
            make = self._by_statistics if module in self.statistics else self._by_bounds
            former = quantizers[0]
            quantizers[0] = _Substitute(former, make(module))
            self._undos.callback(quantizers.__setitem__, 0, former)
        for module in self.bounded:
            self._undos.callback(module.register_forward_pre_hook(self._look_at).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._undos.close()

    @property
    def _sign(self) -> int:
        """1 in a pass of highest values, -1 in a pass of lowest values, 0 in a random pass."""
        return {"highest": 1, "lowest": -1}.get(self.kind.split()[0], 0)

    def _by_statistics(self, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        statistics, axis = self.statistics[module], _channel_axis(module)

        def output_of(output: torch.Tensor) -> torch.Tensor:
            if self._sign:
                return farthest_output(statistics, output, self._sign * self.limit, axis=axis)
            seed = self.number + len(PASSES) * self._order[module]
            return normal_output(statistics, output, self.limit, axis=axis, seed=seed)

        return output_of

    def _by_bounds(self, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def output_of(output: torch.Tensor) -> torch.Tensor:
            if "bound" not in self.kind:
                return output
            farthest, nearest = self._seen[module][:: -self._sign]
            return linear_bound(module.get_original_module(), farthest, nearest)  # type: ignore[operator]

        return output_of

    def _look_at(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Note the lowest and highest value of each input channel."""
        if "bound" in self.kind:  # the inputs are bounds in this pass, and would grow layer by layer
            return
        tensor, axis = inputs[0].detach().as_subclass(torch.Tensor), _channel_axis(module)
        others = [place for place in range(tensor.dim()) if place != axis % tensor.dim()]
        low, high = tensor.amin(others, keepdim=True), tensor.amax(others, keepdim=True)
        if module in self._seen:
            low, high = torch.minimum(low, self._seen[module][0]), torch.maximum(high, self._seen[module][1])
        # [images, channels, …] again, so that the layer accepts the tensors
        self._seen[module] = low.expand_as(tensor), high.expand_as(tensor)


class _Substitute(torch.nn.Module):
    """Replaces an output quantizer, and passes a made-up tensor to it instead of the layer's output."""

    def __init__(
        self, quantizer: torch.nn.Module | None, output_of: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.output_of = output_of

    def forward(self, output: torch.Tensor) -> torch.Tensor:
        """Return the substitute, quantized if there is a quantizer."""
        substitute = self.output_of(output)
        return substitute if self.quantizer is None else self.quantizer(substitute)


def _channel_axis(module: torch.nn.Module) -> int:
    return -1 if isinstance(module, torch.nn.Linear) else 1
