"""The networks of the benchmark: MobileNetV2 of width 1.0, from eq_aimet and from e2cnn alone."""

from __future__ import annotations

from typing import Any

import torch

__all__ = [
    "INPUT_SHAPE",
    "PlainE2cnnMobileNetV2",
    "build_equivariant",
    "measure_statistics",
    "spread_statistics",
]

INPUT_SHAPE = (1, 3, 95, 95)

# Expansion, channels, repeats and stride of each stage, the same values as in eq_aimet.models.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 1),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)


def build_equivariant(group: int, depthwise: str = "channel") -> torch.nn.Module:
    """Return eq_aimet's equivariant MobileNetV2 of width 1.0 in training mode."""
    from eq_aimet.models import EquivariantMobileNetV2

    return EquivariantMobileNetV2(group=group, depthwise=depthwise)


class PlainE2cnnMobileNetV2(torch.nn.Module):
    """The same layers as `build_equivariant(group, "field")`, written with e2cnn alone.

    e2cnn has no channel-wise depthwise convolution. The benchmark therefore compares this network with
    eq_aimet's field-wise network. This network has no masks, while eq_aimet's network has two.

    Args:
        group: N of the group C_N.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        from e2cnn import gspaces
        from e2cnn import nn as enn

        space = gspaces.Rot2dOnR2(group)

        def regular(channels: int) -> Any:
            return enn.FieldType(space, channels // group * [space.regular_repr])

        def convolve(in_type: Any, out_type: Any, kernel_size: int, **options: Any) -> list[Any]:
            return [
                enn.R2Conv(in_type, out_type, kernel_size, bias=False, **options),
                enn.InnerBatchNorm(out_type),
                enn.ReLU(out_type),
            ]

        def round_to_fields(channels: int) -> int:
            nearest = int(channels + group / 2) // group * group
            return nearest if nearest >= 0.9 * channels else nearest + group

        self.in_type = enn.FieldType(space, 3 * [space.trivial_repr])
        in_type = regular(round_to_fields(32))
        self.stem = enn.SequentialModule(*convolve(self.in_type, in_type, 3, stride=2))
        blocks, self.is_residual = [], []
        for expansion, channels, repeats, first_stride in _STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                hidden, out_type = regular(expansion * in_type.size), regular(round_to_fields(channels))
                layers = convolve(in_type, hidden, 1) if expansion > 1 else []
                layers += convolve(hidden, hidden, 3, stride=stride, padding=1, groups=len(hidden))
                layers += convolve(hidden, out_type, 1)[:-1]
                blocks.append(enn.SequentialModule(*layers))
                self.is_residual.append(in_type == out_type and stride == 1)
                in_type = out_type
        self.blocks = torch.nn.ModuleList(blocks)
        head_type = regular(1280)
        self.head = enn.SequentialModule(*convolve(in_type, head_type, 1))
        self.group_pool = enn.GroupPooling(head_type)
        self.classifier = torch.nn.Linear(len(head_type), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (batch, 2)."""
        from e2cnn import nn as enn

        fields = self.stem(enn.GeometricTensor(x, self.in_type))
        for block, is_residual in zip(self.blocks, self.is_residual, strict=True):
            fields = fields + block(fields) if is_residual else block(fields)
        return self.classifier(self.group_pool(self.head(fields)).tensor.mean((2, 3)))


def spread_statistics(model: torch.nn.Module, generator: torch.Generator, sigma: float) -> None:
    """Give each field of each batch norm random parameters and running statistics, in place.

    γ and the variances are log-normal; β and the means are normal. e2cnn's batch norms hold one number of
    each kind per field, so that the channels of a block stay tied.
    """
    for norm in _batch_norms(model):
        spread = sigma * torch.randn(4, *norm.running_mean.shape, generator=generator)
        with torch.no_grad():
            norm.weight.copy_(spread[0].exp())
            norm.bias.copy_(spread[1])
            norm.running_mean.copy_(0.5 * spread[2])
            norm.running_var.copy_(spread[3].exp())


def measure_statistics(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Replace all batch norms' running statistics in place by the statistics of `images`; keep γ and β."""
    for norm in _batch_norms(model):
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches; here there is one batch
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()


def _batch_norms(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
