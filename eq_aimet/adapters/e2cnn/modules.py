"""From e2cnn's modules to plain ones that compute the same in eval mode.

Every function here takes one e2cnn module, leaves it as it is (weights, mode, storage), and returns a new plain module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from e2cnn import nn as enn

from eq_aimet.adapters.e2cnn.convolution import ChannelwiseR2Conv
from eq_aimet.adapters.e2cnn.fields import field_sizes, tag_with_types
from eq_aimet.adapters.e2cnn.mask import CircularMask
from eq_aimet.errors import ExportError
from eq_aimet.symmetry.modules import GroupMaxPool, Mask

__all__ = ["TRACED_THROUGH", "to_plain_module"]

# Modules whose forward only passes fields on to other modules: the tracer goes into them.
TRACED_THROUGH: tuple[type[torch.nn.Module], ...] = (
    enn.SequentialModule,
    enn.ModuleList,
    enn.RestrictionModule,
)


def to_plain_module(module: enn.EquivariantModule) -> torch.nn.Module | None:
    """Return a plain module that computes what an e2cnn `module` does in eval mode, or `None` to trace into it.

    A class of e2cnn is converted by the table below. A user's own `EquivariantModule` is converted by its own `export()` if
    it defines one; if it only adds to a class of e2cnn without a new `forward`, as that class; otherwise it is traced.

    Raises:
        ExportError: If a class of e2cnn has no exact plain equivalent here.
    """
    if type(module) in TRACED_THROUGH:
        return None
    owner = _defining_class(type(module), "forward")
    if not _is_of_e2cnn(type(module)) and type(module) not in _CONVERTERS:
        if not _is_of_e2cnn(_defining_class(type(module), "export")):
            return copy.deepcopy(module).export().eval()
        if not _is_of_e2cnn(owner):
            return None
    converter = _CONVERTERS.get(type(module)) or _CONVERTERS.get(owner)
    if converter is None:
        raise ExportError(
            f"`{type(module).__name__}` of e2cnn has no exact plain equivalent in eq_aimet. Replace it by a module that has "
            "one, or register a plugin whose `eq_aimet_export_module` returns a plain module for it."
        )
    return converter(module).eval()


def _defining_class(cls: type, method: str) -> type:
    return next(base for base in cls.__mro__ if method in vars(base))


def _is_of_e2cnn(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "e2cnn"


def _convolution(module: enn.R2Conv) -> torch.nn.Module:
    with torch.no_grad():
        # The stored `filter` is stale if the weights changed in eval mode, so it is expanded anew.
        weight, bias = module.expand_parameters()
    plain = torch.nn.utils.skip_init(
        torch.nn.Conv2d,
        module.in_type.size,
        module.out_type.size,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=bias is not None,
        padding_mode=module.padding_mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        plain.weight.copy_(weight)
        if bias is not None:
            plain.bias.copy_(bias)
    return tag_with_types(plain, module.in_type, module.out_type, kernel_size=module.kernel_size)


def _channelwise_convolution(module: ChannelwiseR2Conv) -> torch.nn.Module:
    return tag_with_types(
        module.export(), module.in_type, module.out_type, kernel_size=module.kernel_size
    )


def _inner_batch_norm(module: enn.InnerBatchNorm) -> torch.nn.Module:
    if not module.track_running_stats:
        raise ExportError(
            "`InnerBatchNorm(track_running_stats=False)` uses the statistics of each batch, which no plain batch norm shares "
            "over a field. Train with running statistics."
        )
    sizes = torch.tensor(field_sizes(module.in_type))
    channel_sizes = sizes.repeat_interleave(sizes)
    first = next(iter(module.children()))
    plain = torch.nn.BatchNorm2d(
        module.in_type.size, module.eps, module.momentum, affine=module.affine, track_running_stats=True
    ).to(device=first.running_mean.device, dtype=first.running_mean.dtype)
    with torch.no_grad():
        for size in sizes.unique().tolist():
            inner = getattr(module, f"batch_norm_[{size}]")
            channels = channel_sizes == size
            for name in ("running_mean", "running_var", "weight", "bias"):
                values = getattr(inner, name)
                if values is not None:
                    # One value per field, in channel order, repeated over the field's channels.
                    getattr(plain, name)[channels] = values.repeat_interleave(size)
            plain.num_batches_tracked.copy_(inner.num_batches_tracked)
    return tag_with_types(plain, module.in_type, module.out_type)


def _pointwise(module: enn.PointwiseNonLinearity) -> torch.nn.Module:
    functions = {
        "relu": torch.nn.ReLU,
        "elu": torch.nn.ELU,
        "sigmoid": torch.nn.Sigmoid,
        "tanh": torch.nn.Tanh,
    }
    return functions[module._function.__name__]()


def _upsampling(module: enn.R2Upsampling) -> torch.nn.Module:
    scale = None if module._size is not None else module._scale_factor
    return torch.nn.Upsample(
        size=module._size, scale_factor=scale, mode=module._mode, align_corners=module._align_corners
    )


_CONVERTERS: dict[type, Callable[..., torch.nn.Module]] = {
    enn.R2Conv: _convolution,
    ChannelwiseR2Conv: _channelwise_convolution,
    enn.InnerBatchNorm: _inner_batch_norm,
    # A plain ReLU that works in place would overwrite what a residual addition still needs in a traced graph.
    enn.ReLU: lambda module: torch.nn.ReLU(),
    enn.ELU: lambda module: torch.nn.ELU(alpha=module.alpha),
    enn.PointwiseNonLinearity: _pointwise,
    enn.PointwiseMaxPool: lambda module: torch.nn.MaxPool2d(
        module.kernel_size, module.stride, module.padding, module.dilation, ceil_mode=module.ceil_mode
    ),
    enn.PointwiseAvgPool: lambda module: torch.nn.AvgPool2d(
        module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode
    ),
    enn.PointwiseAdaptiveAvgPool: lambda module: torch.nn.AdaptiveAvgPool2d(module.output_size),
    enn.PointwiseAdaptiveMaxPool: lambda module: torch.nn.AdaptiveMaxPool2d(module.output_size),
    enn.GroupPooling: lambda module: GroupMaxPool(field_sizes(module.in_type)),
    enn.R2Upsampling: _upsampling,
    enn.MaskModule: lambda module: Mask(module.mask),
    CircularMask: lambda module: module.export(),
    enn.IdentityModule: lambda module: torch.nn.Identity(),
    # Dropouts do nothing in eval mode.
    enn.PointwiseDropout: lambda module: torch.nn.Identity(),
    enn.FieldDropout: lambda module: torch.nn.Identity(),
}
