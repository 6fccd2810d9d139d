"""Training that keeps the values of each orbit equal: `tie_parameters`.

Every member of an orbit gets the sum of the gradients of all members, which is the gradient of one shared
value. An optimizer that treats each number separately (SGD, Adam, RMSprop …) then changes all members alike.
After each step the members are made equal, bit for bit. They stay equal with every optimizer, and in spite of
rounding.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantization.affine import AffineQuantizerBase
from aimet_torch.quantsim import QuantizationSimModel
from torch.optim.optimizer import register_optimizer_step_post_hook

from eq_aimet.aimet.patching import patch
from eq_aimet.aimet.rounding.tied_batch_norm import TiedBatchNorm
from eq_aimet.aimet.rounding.tied_layers import check_still_tied, has_ties
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.orbits import bias_orbits, orbit_means, weight_orbits
from eq_aimet.symmetry.shared_encodings import covers, encoding_groups

__all__ = ["TiedParameters", "tie_parameters"]

_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


@dataclass
class _Tie:
    """One parameter or buffer whose values are tied.

    Attributes:
        name: The full name of the parameter or buffer in the model.
        values: The parameter or buffer.
        orbits: The orbit of each value, in the shape of `values`.
        version: torch's count of changes to `values` when the values of each orbit were last equal.
    """

    name: str
    values: torch.Tensor
    orbits: torch.Tensor
    version: int = -1

    def sum_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient with each value replaced by the sum over its orbit."""
        flat = self.orbits.flatten().to(gradient.device)
        sums = torch.zeros(int(flat.max()) + 1, dtype=torch.float64, device=gradient.device)
        sums.index_add_(0, flat, gradient.flatten().double())
        return sums[flat].reshape(gradient.shape).to(gradient.dtype)

    @torch.no_grad()
    def make_equal(self) -> None:
        """Replace each value by its orbit's mean, in place, if a value changed since the last call."""
        if self.values._version != self.version:
            self.values.copy_(orbit_means(self.values, self.orbits))
            self.version = self.values._version


class TiedParameters:
    """The ties of `tie_parameters`: a context manager, and `remove()` for scripts.

    Attributes:
        names: The full names of the tied parameters and buffers.
    """

    def __init__(self, model: torch.nn.Module, ties: list[_Tie]) -> None:
        self._ties = {id(tie.values): tie for tie in ties}
        self._undos = ExitStack()
        self._hooked: set[int] = set()
        self.names = tuple(tie.name for tie in ties)
        with ExitStack() as undos:
            undos.callback(register_optimizer_step_post_hook(self._after_step).remove)
            undos.callback(model.register_forward_pre_hook(self._before_forward).remove)
            for layer in model.modules():
                blocks = layer_blocks(layer)
                if type(layer) in _NORMS and blocks is not None and blocks.actions:
                    undos.callback(patch(layer, "forward", TiedBatchNorm(layer, bias_orbits(blocks))))
            self._undos = undos.pop_all()
        self._watch_gradients()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy of the model, or a file, holds ordinary parameters.
        return _no_ties, ()

    def remove(self) -> None:
        """End the ties; the parameters become ordinary parameters, with equal values in each orbit."""
        self._undos.close()
        for tie in self._ties.values():
            tie.version = -1
            tie.make_equal()

    def __enter__(self) -> TiedParameters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _watch_gradients(self) -> None:
        """Sum the gradient of each parameter that requires a gradient over its orbits."""
        for key, tie in self._ties.items():
            if key not in self._hooked and tie.values.requires_grad and tie.values.is_leaf:
                self._hooked.add(key)
                self._undos.callback(tie.values.register_hook(tie.sum_gradient).remove)

    def _before_forward(self, *_: Any) -> None:
        # Parameters may have been unfrozen, loaded, or changed without an optimizer.
        self._watch_gradients()
        for tie in self._ties.values():
            tie.make_equal()

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                tie = self._ties.get(id(parameter))
                if tie is not None:
                    tie.make_equal()


def _no_ties() -> TiedParameters:
    return TiedParameters(torch.nn.Identity(), [])


def tie_parameters(model_or_sim: torch.nn.Module | QuantizationSimModel) -> TiedParameters:
    """Keep the values of each orbit equal while a model is trained; the training loop needs no change.

    Each parameter gets the sum of the gradients over its orbit, so that a step of the optimizer is the step
    that training one value per orbit would make. Learned encodings of AIMET's quantizers are tied too. Batch
    norms take their statistics over whole orbits of channels, in training and in AIMET's
    `reestimate_bn_stats`. Gradient accumulation and mixed precision work. The optimizer may be made before
    the call. The norm in gradient clipping counts each member of an orbit.

    Args:
        model_or_sim: A plain model, or AIMET's simulation, in which layers carry actions and in which the
            values of each orbit are equal.

    Returns:
        A context manager. The ties hold at once, and until the end of the `with` block or until `remove()`;
        an exception ends the ties, too. Afterwards the parameters are ordinary parameters.

    Raises:
        InvalidArgumentError: If the argument is neither a model nor a simulation, no layer carries actions,
            or the values of an orbit differ.

    Example:
        >>> import torch
        >>> from eq_aimet import is_symmetric, symmetrize, tag_blocks, tie_parameters
        >>> from eq_aimet.symmetry import regular_actions
        >>> layer = torch.nn.Conv2d(1, 4, 3)
        >>> handle = tag_blocks(layer, [1], [4], actions=regular_actions([1], [4], order=4, kernel_size=3))
        >>> symmetrize(layer)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> with tie_parameters(layer):
        ...     layer(torch.rand(2, 1, 5, 5)).square().mean().backward()
        ...     optimizer.step()
        ...     is_symmetric(layer)
        True
    """
    argument = "model_or_sim"
    model = model_or_sim.model if isinstance(model_or_sim, QuantizationSimModel) else model_or_sim
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgumentError(
            argument,
            received=f"a {type(model_or_sim).__name__}",
            expected="a torch.nn.Module or AIMET's QuantizationSimModel",
            remedy="Give the model that is trained.",
        )
    if not has_ties(model):
        raise InvalidArgumentError(
            argument,
            received=f"a {type(model).__name__} in which no layer carries actions",
            expected="a model out of `export_model`, or layers tagged with `tag_blocks(…, actions=…)`",
            remedy="Train a conventional model without `tie_parameters`; the group ties none of its weights.",
        )
    path = "model" if model is model_or_sim else "sim.model"
    check_still_tied(argument, model, path)
    ties = {id(tie.values): tie for tie in _ties(model)}
    return TiedParameters(model, list(ties.values()))


def _ties(model: torch.nn.Module) -> list[_Tie]:
    """Return all parameters and buffers of a model with ties, encodings included."""
    ties: list[_Tie] = []
    for name, layer in model.named_modules():
        blocks = layer_blocks(layer)
        if blocks is None or not blocks.actions:
            continue
        for key in ("weight", "bias", "running_mean", "running_var"):
            values = getattr(layer, key, None)
            if isinstance(values, torch.Tensor):
                orbits = bias_orbits(blocks) if values.dim() == 1 else weight_orbits(layer, blocks)
                ties.append(_Tie(f"{name}.{key}" if name else key, values, orbits))
        if isinstance(layer, BaseQuantizationMixin):
            ties += _encoding_ties(name, layer, blocks)
    return ties


def _encoding_ties(name: str, layer: BaseQuantizationMixin, blocks: LayerBlocks) -> list[_Tie]:
    """Return the encodings of a layer's parameters, of which several quantize one parameter."""
    ties: list[_Tie] = []
    for parameter, quantizer in layer.param_quantizers.items():
        if not isinstance(quantizer, AffineQuantizerBase) or torch.Size(quantizer.shape).numel() == 1:
            continue
        values = layer.get_parameter(parameter)
        orbits = bias_orbits(blocks) if values.dim() == 1 else weight_orbits(layer, blocks)
        if covers(tuple(quantizer.shape), tuple(values.shape)):
            groups = encoding_groups(tuple(quantizer.shape), orbits)
            prefix = f"{name}." if name else ""
            ties += [
                _Tie(f"{prefix}param_quantizers.{parameter}.{key}", value, groups)
                for key, value in quantizer.named_parameters(recurse=False)
            ]
    return ties
