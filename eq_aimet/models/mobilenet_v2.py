"""The conventional MobileNetV2; each layer has a counterpart in the equivariant MobileNetV2."""

from __future__ import annotations

import torch

from eq_aimet.arguments import check_integer
from eq_aimet.models.architecture import BlockPlan, plan_architecture
from eq_aimet.models.conventional_layers import convolve, initialize
from eq_aimet.models.network_input import check_input
from eq_aimet.plain import Mask
from eq_aimet.plain.circular_mask import circular_mask

__all__ = ["InvertedResidual", "MobileNetV2"]


class InvertedResidual(torch.nn.Module):
    """1×1 expansion, 3×3 depthwise convolution, 1×1 projection; it adds the input if the plan is residual.

    Args:
        plan: The channels, stride and padding.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        hidden = plan.hidden_channels
        layers: list[torch.nn.Module] = []
        if plan.expands:
            layers += convolve(plan.in_channels, hidden, 1)
        layers += convolve(hidden, hidden, 3, stride=plan.stride, padding=plan.padding, groups=hidden)
        # the projection has no nonlinearity: the bottleneck is linear
        layers += convolve(hidden, plan.out_channels, 1)[:-1]
        self.block = torch.nn.Sequential(*layers)
        self.is_residual = plan.is_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, (B, out_channels, H / stride, W / stride)."""
        return x + self.block(x) if self.is_residual else self.block(x)


class MobileNetV2(torch.nn.Module):
    """MobileNetV2 (Sandler et al. 2018) for small square images, in plain torch.

    It has the channel counts, filter sizes and masks of `EquivariantMobileNetV2`, so that only the symmetry
    distinguishes the two networks. Both differ from the paper: they use ReLU instead of ReLU6, all grids are
    odd, and the inscribed circle masks the input and the last feature map.

    Args:
        num_classes: The number of logits.
        in_channels: The channels of the input.
        width: The width multiplier of the channel counts.
        divisor: Each channel count is a multiple of it. Give the `group` of the equivariant counterpart.
        input_size: The side of the square input in pixels, odd.

    Raises:
        InvalidArgumentError: If a count is below 1, if a layer would have fewer channels than `divisor`, or
            if `input_size` is even or too small; in `forward`, if `x` has another shape.

    Example:
        >>> net = MobileNetV2(num_classes=2, width=0.5, input_size=33)
        >>> net(torch.rand(4, 3, 33, 33)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        divisor: int = 8,
        input_size: int = 95,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, remedy="Give the number of classes.")
        check_integer("in_channels", in_channels, remedy="Give the number of the input's channels.")
        check_integer("divisor", divisor, remedy="Give the block size of the equivariant counterpart.")
        plan = plan_architecture(width=width, divisor=divisor, input_size=input_size)
        self.in_channels, self.input_size = in_channels, input_size
        self.input_mask = Mask(circular_mask(input_size))
        self.stem = torch.nn.Sequential(
            *convolve(in_channels, plan.stem_channels, 3, stride=2, padding=plan.stem_padding)
        )
        self.blocks = torch.nn.Sequential(*(InvertedResidual(block) for block in plan.blocks))
        self.head = torch.nn.Sequential(*convolve(plan.blocks[-1].out_channels, plan.head_channels, 1))
        self.head_mask = Mask(circular_mask(plan.final_size))
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Linear(plan.head_channels, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, num_classes), of images (B, in_channels, input_size, input_size)."""
        check_input(x, self.in_channels, self.input_size)
        x = self.stem(self.input_mask(x))
        x = self.head(self.blocks(x))
        x = self.pool(self.head_mask(x))  # [batch, head_channels, 1, 1]
        return self.classifier(x.flatten(1))
