"""AdaRound with one rounding variable per orbit of weights.

AdaRound learns for each weight whether it is rounded up or down (Nagel et al., arXiv 2004.10568). Here the
variable belongs to an orbit: its gradient is the sum over the members, and all members are rounded alike.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from aimet_torch.adaround.adaround_weight import AdaroundWrapper

from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.orbit_numbers import first_members
from eq_aimet.symmetry.orbits import weight_orbits

__all__ = ["TiedAdaroundWrapper", "rounding_orbits"]


class TiedAdaroundWrapper(AdaroundWrapper):
    """AIMET's wrapper around a quantized layer, whose variable `alpha` has the shape (orbits,)."""

    alpha: Any

    def __init__(self, module: Any, orbits: torch.Tensor) -> None:
        self._orbits, self._members = orbits.flatten(), first_members(orbits)
        super().__init__(module)

    def _init_param(self) -> None:
        super()._init_param()
        self.alpha = torch.nn.Parameter(self._of_orbits(self.alpha.detach()))
        # `AdaroundLoss.compute_round_loss` gets only this parameter.
        self.alpha.eq_aimet_orbits = self._orbits

    def apply_adaround(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the weights, each rounded by the variable of its orbit.

        One weight per orbit is computed and then copied, since a processor may round equal numbers
        differently at different places of a tensor.
        """
        rounded = AdaroundWrapper.apply_adaround(
            SimpleNamespace(
                alpha=self.alpha,
                broadcasted_delta=self._of_orbits(self.broadcasted_delta),
                broadcasted_offset=self._of_orbits(self.broadcasted_offset),
                use_soft_rounding=self.use_soft_rounding,
                clip_min=self.clip_min,
                clip_max=self.clip_max,
            ),
            self._of_orbits(tensor),
        )
        return rounded.index_select(0, self._orbits.to(rounded.device)).reshape(tensor.shape)

    def _of_orbits(self, values: torch.Tensor) -> torch.Tensor:
        """Return the value of each orbit's first weight, of shape (orbits,)."""
        return values.flatten()[self._members.to(values.device)]


def rounding_orbits(quant_module: Any) -> torch.Tensor | None:
    """Return the orbits of a quantized layer's weights, or `None` if the group does not tie the weights."""
    blocks = layer_blocks(quant_module)
    if blocks is None or not blocks.actions:
        return None
    return weight_orbits(quant_module, blocks)
