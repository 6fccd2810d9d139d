"""The conventional DenseNet; each layer has a counterpart in the equivariant DenseNet."""

from __future__ import annotations

import torch

from eq_aimet.arguments import check_integer
from eq_aimet.models.conventional_layers import convolve, initialize
from eq_aimet.models.dense_architecture import DenseBlockPlan, plan_dense_architecture
from eq_aimet.models.network_input import check_input
from eq_aimet.plain import Concat, Mask
from eq_aimet.plain.circular_mask import circular_mask

__all__ = ["DenseBlock", "DenseNet"]


class DenseBlock(torch.nn.Module):
    """A transition (pooling and 1×1 convolution), then a 3×3 convolution whose output joins its input.

    Args:
        plan: The channel counts, and the window of the transition's pooling.
    """

    def __init__(self, plan: DenseBlockPlan) -> None:
        super().__init__()
        transition: list[torch.nn.Module] = []
        if plan.window:
            transition = [
                torch.nn.AvgPool2d(plan.window, stride=2),
                *convolve(plan.in_fields, plan.in_fields, 1),
            ]
        self.transition = torch.nn.Sequential(*transition)
        self.layer = torch.nn.Sequential(*convolve(plan.in_fields, plan.growth, 3, padding=1))
        self.concat = Concat()  # a module, because AIMET quantizes only modules

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the transition's output and the added channels, (B, out_fields, H / 2, W / 2)."""
        x = self.transition(x)
        return self.concat(x, self.layer(x))


class DenseNet(torch.nn.Module):
    """The DenseNet of Veeling et al. 2018 for small square images, in plain torch.

    It has the layers, filter sizes and mask of `EquivariantDenseNet`, which describes the architecture. With
    the same `width`, both networks have about the same number of weights. Only the symmetry distinguishes
    them.

    Args:
        num_classes: The number of logits.
        in_channels: The channels of the input.
        width: The multiplier of the channel counts.
        input_size: The side of the square input in pixels.

    Raises:
        InvalidArgumentError: If a count is below 1, if a layer would have less than one channel, or if
            `input_size` is too small; in `forward`, if `x` has another shape.

    Example:
        >>> net = DenseNet(num_classes=2, width=0.25, input_size=33)
        >>> net(torch.rand(4, 3, 33, 33)).shape
        torch.Size([4, 2])
    """

    def __init__(
        self, num_classes: int = 2, *, in_channels: int = 3, width: float = 1.0, input_size: int = 95
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, remedy="Give the number of classes.")
        check_integer("in_channels", in_channels, remedy="Give the number of the input's channels.")
        plan = plan_dense_architecture(width=width, order=1, input_size=input_size)
        self.in_channels, self.input_size = in_channels, input_size
        self.input_mask = Mask(circular_mask(input_size))
        self.stem = torch.nn.Sequential(*convolve(in_channels, plan.stem_fields, 3, padding=1))
        self.blocks = torch.nn.Sequential(*(DenseBlock(block) for block in plan.blocks))
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.classifier = torch.nn.Linear(plan.out_fields, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, num_classes), of images (B, in_channels, input_size, input_size)."""
        check_input(x, self.in_channels, self.input_size)
        x = self.blocks(self.stem(self.input_mask(x)))
        x = self.pool(x)  # [batch, out_fields, 1, 1]
        return self.classifier(x.flatten(1))
