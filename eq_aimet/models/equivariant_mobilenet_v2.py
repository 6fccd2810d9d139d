"""MobileNetV2 that is equivariant to rotations by multiples of 360°/N, in e2cnn or escnn."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from eq_aimet.adapters.libraries import load_adapter
from eq_aimet.arguments import check_choice, check_integer
from eq_aimet.models.architecture import LARGEST_GROUP, BlockPlan, plan_architecture
from eq_aimet.models.equivariant_layers import EquivariantNetwork, convolve
from eq_aimet.models.network_input import check_input

__all__ = ["EquivariantInvertedResidual", "EquivariantMobileNetV2"]

DEPTHWISE = ("channel", "field")


class EquivariantInvertedResidual(torch.nn.Module):
    """1×1 expansion, 3×3 depthwise convolution, 1×1 projection; it adds the input if the plan is residual.

    Args:
        gspace: The symmetry.
        plan: The channels, stride and padding. The channels are multiples of the group's order.
        depthwise: "channel" or "field", see `EquivariantMobileNetV2`.
    """

    def __init__(self, adapter: ModuleType, gspace: Any, plan: BlockPlan, depthwise: str) -> None:
        super().__init__()
        in_type = _regular_type(adapter, gspace, plan.in_channels)
        hidden = _regular_type(adapter, gspace, plan.hidden_channels)
        out_type = _regular_type(adapter, gspace, plan.out_channels)
        layers: list[torch.nn.Module] = []
        if plan.expands:
            layers += convolve(adapter, in_type, hidden, 1)
        if depthwise == "channel":
            spatial = adapter.ChannelwiseR2Conv(
                hidden, 3, stride=plan.stride, padding=plan.padding, bias=False
            )
            layers += [spatial, adapter.build_batch_norm(hidden), adapter.enn.ReLU(hidden)]
        else:
            layers += convolve(
                adapter, hidden, hidden, 3, stride=plan.stride, padding=plan.padding, groups=len(hidden)
            )
        # the projection has no nonlinearity: the bottleneck is linear
        layers += convolve(adapter, hidden, out_type, 1)[:-1]
        self.block = adapter.enn.SequentialModule(*layers)
        self.is_residual = plan.is_residual

    def forward(self, x: Any) -> Any:
        """Return the block's output field, (B, out_channels, H / stride, W / stride)."""
        return x + self.block(x) if self.is_residual else self.block(x)


class EquivariantMobileNetV2(EquivariantNetwork):
    """MobileNetV2 (Sandler et al. 2018) whose logits don't change when the image turns.

    The channels of a layer are F regular fields of the cyclic group C_N, and each field has N channels. The
    layers have the same widths as the layers of `MobileNetV2(divisor=N)`. Group pooling before the global
    pooling makes the equivariant network invariant. The invariance is exact for the multiples of 90° that C_N
    contains. For other angles it is approximate, because a finer turn interpolates the image.

    A state dict holds only the weights. Save it in training or eval mode, and load it in either mode.

    Args:
        num_classes: The number of logits.
        in_channels: The channels of the input. All are scalar, as colours are.
        width: The width multiplier of the channel counts.
        group: N, the number of rotations. With 1, the network is conventional but consists of e2cnn layers.
        depthwise: "channel" filters each channel by itself. A conventional depthwise convolution does the
            same at the same cost. "field" mixes the N channels of a field, as e2cnn's `groups` does.
        input_size: The side of the square input in pixels, odd.
        library: The library of the layers, "e2cnn" or "escnn".

    Raises:
        InvalidArgumentError: If a count is below 1, if `depthwise` or `library` is unknown, if a layer would
            have less than one field, or if `input_size` is even or too small; in `forward`, if `x` has
            another shape.

    Example:
        >>> net = EquivariantMobileNetV2(num_classes=2, width=0.25, group=4, input_size=33).eval().double()
        >>> x = torch.rand(1, 3, 33, 33, dtype=torch.float64)
        >>> torch.allclose(net(x), net(x.rot90(1, (2, 3))), rtol=1e-10, atol=0.0)
        True
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        group: int = 8,
        depthwise: str = "channel",
        input_size: int = 95,
        library: str = "e2cnn",
    ) -> None:
        super().__init__(library)
        check_integer("num_classes", num_classes, remedy="Give the number of classes.")
        check_integer("in_channels", in_channels, remedy="Give the number of the input's channels.")
        remedy = "Give N of the cyclic group C_N, for example 4 or 8."
        check_integer("group", group, most=LARGEST_GROUP, remedy=remedy)
        remedy = 'Take "channel", unless you compare with e2cnn\'s depthwise convolution.'
        check_choice("depthwise", depthwise, DEPTHWISE, remedy=remedy)
        plan = plan_architecture(width=width, divisor=group, input_size=input_size)
        adapter = load_adapter(library)
        enn, gspace = adapter.enn, adapter.planar_space(group)
        self.in_channels, self.input_size = in_channels, input_size
        self.in_type = enn.FieldType(gspace, in_channels * [gspace.trivial_repr])
        self.input_mask = adapter.CircularMask(self.in_type, input_size)
        stem_type = _regular_type(adapter, gspace, plan.stem_channels)
        self.stem = enn.SequentialModule(
            *convolve(adapter, self.in_type, stem_type, 3, stride=2, padding=plan.stem_padding)
        )
        self.blocks = torch.nn.Sequential(
            *(EquivariantInvertedResidual(adapter, gspace, block, depthwise) for block in plan.blocks)
        )
        head_type = _regular_type(adapter, gspace, plan.head_channels)
        self.head = enn.SequentialModule(
            *convolve(adapter, _regular_type(adapter, gspace, plan.blocks[-1].out_channels), head_type, 1)
        )
        self.head_mask = adapter.CircularMask(head_type, plan.final_size)
        self._append_classifier(head_type, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, num_classes), of images (B, in_channels, input_size, input_size)."""
        check_input(x, self.in_channels, self.input_size)
        fields = self.input_mask(self._tensor_class(x, self.in_type))
        return self._classify(self.head_mask(self.head(self.blocks(self.stem(fields)))))


def _regular_type(adapter: ModuleType, gspace: Any, channels: int) -> Any:
    """Return the field type whose regular fields have `channels` channels in total."""
    return adapter.enn.FieldType(gspace, channels // gspace.regular_repr.size * [gspace.regular_repr])
