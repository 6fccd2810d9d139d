"""From layers with weights or statistics to convolutions and batch norms of torch.

Every function here takes one module and returns a new plain layer that carries its blocks. The module stays
unchanged.
"""

from __future__ import annotations

from typing import Any

import torch

from eq_aimet.adapters.fields import field_sizes, tag_with_types
from eq_aimet.adapters.plain_twins.blockwise import blockwise_map, is_on_point
from eq_aimet.errors import ExportError

BatchNorm = torch.nn.BatchNorm1d | torch.nn.BatchNorm2d

__all__ = [
    "channelwise_convolution",
    "convolution",
    "gaussian_blur",
    "generic_batch_norm",
    "induced_norm_batch_norm",
    "inner_batch_norm",
    "new_batch_norm",
    "norm_batch_norm",
    "refuse_batch_statistics",
    "transposed_convolution",
]


def convolution(module: Any) -> torch.nn.Conv2d:
    """Return the `Conv2d` of an `R2Conv` or `R2Diffop`."""
    layer: torch.nn.Conv2d = _convolve(torch.nn.Conv2d, module, padding_mode=module.padding_mode)
    tag_with_types(layer, module.in_type, module.out_type, kernel_size=module.kernel_size)
    return layer


def channelwise_convolution(module: Any) -> torch.nn.Module:
    """Return the `Conv2d` of a channel-wise depthwise convolution, which has one group per channel."""
    return tag_with_types(module.export(), module.in_type, module.out_type, kernel_size=module.kernel_size)


def transposed_convolution(module: Any) -> torch.nn.Module:
    """Return the `ConvTranspose2d` of an `R2ConvTransposed`."""
    layer = _convolve(torch.nn.ConvTranspose2d, module, output_padding=module.output_padding)
    return tag_with_types(layer, module.in_type, module.out_type, kernel_size=module.kernel_size)


def _convolve(layer_class: Any, module: Any, **options: Any) -> Any:
    with torch.no_grad():
        # The stored `filter` is stale if the weights changed in eval mode, so the filter is expanded again.
        weight, bias = module.expand_parameters()
    # On the meta device torch allocates no memory and draws no weights. The lines below replace the
    # parameters.
    layer = layer_class(
        module.in_type.size,
        module.out_type.size,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=bias is not None,
        device="meta",
        **options,
    )
    assert layer.weight.shape == weight.shape
    layer.weight = torch.nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach().clone())
    return layer


def gaussian_blur(module: Any, padding: tuple[int, int]) -> torch.nn.Module:
    """Return the depthwise `Conv2d` of an antialiased pooling's fixed filter; its weight is not trainable."""
    channels = module.in_type.size
    layer = torch.nn.utils.skip_init(
        torch.nn.Conv2d,
        channels,
        channels,
        tuple(module.filter.shape[2:]),
        stride=module.stride,
        padding=padding,
        groups=channels,
        bias=False,
        device=module.filter.device,
        dtype=module.filter.dtype,
    )
    with torch.no_grad():
        layer.weight.copy_(module.filter)
    layer.weight.requires_grad_(False)
    return tag_with_types(layer, module.in_type, module.out_type, kernel_size=module.filter.shape[-1])


def refuse_batch_statistics(module: Any) -> None:
    """Raise `ExportError` for a batch norm that uses the statistics of each batch."""
    if not module.track_running_stats:
        raise ExportError(
            f"`{type(module).__name__}(track_running_stats=False)` uses the statistics of each batch, which "
            "no plain batch norm shares over a field. Train with running statistics."
        )


def inner_batch_norm(module: Any) -> torch.nn.Module:
    """Return the `BatchNorm2d` of an `InnerBatchNorm`: each field's values, repeated over its channels."""
    refuse_batch_statistics(module)
    inner = {size: getattr(module, f"batch_norm_[{size}]") for size in set(field_sizes(module.in_type))}
    layer = new_batch_norm(module, next(iter(inner.values())).running_mean)
    sizes = _size_of_channel(module)
    with torch.no_grad():
        for size, batch_norm in inner.items():
            for name in ("running_mean", "running_var", "weight", "bias"):
                values = getattr(batch_norm, name)
                if values is not None:
                    # One value per field, in channel order, repeated over the field's channels.
                    getattr(layer, name)[sizes == size] = values.repeat_interleave(size)
            _buffer(layer, "num_batches_tracked").copy_(batch_norm.num_batches_tracked)
    return tag_with_types(layer, module.in_type, module.out_type)


def norm_batch_norm(module: Any) -> torch.nn.Module:
    """Return the `BatchNorm2d` of a `NormBatchNorm`, with the mean zero."""
    return _scale_only(module, [(size, str(size)) for size in field_sizes(module.in_type)])


def induced_norm_batch_norm(module: Any) -> torch.nn.Module:
    """Return the `BatchNorm2d` of an `InducedNormBatchNorm`, with the mean zero."""
    return _scale_only(
        module,
        [
            (representation.size, str((representation.size, subfield_size(representation))))
            for representation in module.in_type.representations
        ],
    )


def subfield_size(representation: Any) -> int:
    """Return the size of the subfields of an induced representation."""
    names = [name for name in representation.supported_nonlinearities if name.startswith("induced_norm")]
    return int(names[0].rpartition("_")[2])


def _scale_only(module: Any, fields: list[tuple[int, str]]) -> torch.nn.Module:
    """Return a `BatchNorm2d` with zero means.

    Args:
        module: The batch norm.
        fields: The size of each field in channel order, and the name of the field's kind. The library stores
            one set of statistics under each of these names.
    """
    kinds = dict.fromkeys(name for _, name in fields)
    sizes = torch.tensor([size for size, _ in fields])
    layer = new_batch_norm(module, getattr(module, f"{fields[0][1]}_running_var"))
    with torch.no_grad():
        for kind in kinds:
            members = torch.tensor([name == kind for _, name in fields])
            channels = members.repeat_interleave(sizes)
            size = int(sizes[members][0])
            _buffer(layer, "running_var")[channels] = (
                getattr(module, f"{kind}_running_var").flatten().repeat_interleave(size)
            )
            if module.affine:
                layer.weight[channels] = getattr(module, f"{kind}_weight").flatten().repeat_interleave(size)
        _buffer(layer, "num_batches_tracked").copy_(module.num_batches_tracked)
    return tag_with_types(layer, module.in_type, module.out_type)


def generic_batch_norm(module: Any) -> torch.nn.Module:
    """Return the plain layer of a `GNormBatchNorm`.

    If the basis of every field is the basis of its irreps, the layer is a `BatchNorm2d`. Otherwise the norm
    mixes the channels of each field, and the layer is a 1×1 `Conv2d`.
    """
    statistics = {name: _field_statistics(module, name) for name, _ in module._sizes}
    names = [representation.name for representation in module.in_type.representations]
    # Per field: mean, variance, weight and bias, of shape (4, size). The library numbers the fields of each
    # name.
    fields = [statistics[name][:, names[:position].count(name)] for position, name in enumerate(names)]
    like = getattr(module, f"{_escaped(module, names[0])}_running_var")
    if any(hasattr(module, f"{_escaped(module, name)}_change_of_basis") for name in statistics):
        maps = [_affine_map(module, name, field) for name, field in zip(names, fields, strict=True)]
        matrices, offsets = zip(*maps, strict=True)
        norm = blockwise_map(module.in_type, [m.to(like) for m in matrices], [o.to(like) for o in offsets])
        return tag_with_types(norm, module.in_type, module.out_type)
    layer = new_batch_norm(module, like)
    with torch.no_grad():
        for name, values in zip(
            ("running_mean", "running_var", "weight", "bias"), torch.cat(fields, 1), strict=True
        ):
            if getattr(layer, name) is not None:
                getattr(layer, name).copy_(values)
        _buffer(layer, "num_batches_tracked").copy_(module.num_batches_tracked)
    return tag_with_types(layer, module.in_type, module.out_type)


def _affine_map(module: Any, name: str, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrix and offset of one field's normalisation, of shape (size, size) and (size,)."""
    mean, variance, weight, bias = field
    name = _escaped(module, name)
    scale = weight / (variance + module.eps).sqrt()
    matrix, offset = torch.diag(scale), bias - scale * mean  # in the basis of the irreps
    if not hasattr(module, f"{name}_change_of_basis"):
        return matrix, offset
    basis, inverse = (
        getattr(module, f"{name}_change_of_basis{suffix}").double().cpu() for suffix in ("", "_inv")
    )
    return basis @ matrix @ inverse, basis @ offset


def _field_statistics(module: Any, name: str) -> torch.Tensor:
    """Return mean, variance, weight and bias of the irreps, in float64, of shape (4, fields, size)."""
    trivial = module._trivial_idxs[name]
    name = _escaped(module, name)
    spread = getattr(module, f"vars_propagator_{name}").double().cpu()  # [size, irreps]
    variances = getattr(module, f"{name}_running_var").detach().double().cpu()  # [fields, irreps]
    weights = (
        getattr(module, f"{name}_weight").detach().double().cpu()
        if module.affine
        else torch.ones_like(variances)
    )
    means, biases = (torch.zeros(len(variances), len(spread), dtype=torch.float64) for _ in range(2))
    means[:, trivial] = getattr(module, f"{name}_running_mean").double().cpu()
    if module.affine:
        biases[:, trivial] = getattr(module, f"{name}_bias").detach().double().cpu()
    return torch.stack((means, variances @ spread.t(), weights @ spread.t(), biases))


def _escaped(module: Any, name: str) -> str:
    """Return a representation's name in the form that the names of buffers contain; escnn replaces dots."""
    escape = getattr(module, "_escape_name", str)
    return str(escape(name))


def new_batch_norm(module: Any, like: torch.Tensor) -> BatchNorm:
    """Return a fresh batch norm with the settings of `module`, and the dtype and device of `like`."""
    kind = torch.nn.BatchNorm1d if is_on_point(module) else torch.nn.BatchNorm2d
    layer = kind(module.in_type.size, module.eps, module.momentum, device=like.device, dtype=like.dtype)
    if not module.affine:
        # AIMET folds no batch norm without weights, so the layer gets weights of 1 that training does not
        # change.
        layer.requires_grad_(False)
    return layer


def _buffer(layer: BatchNorm, name: str) -> torch.Tensor:
    buffer = getattr(layer, name)
    assert isinstance(buffer, torch.Tensor)
    return buffer


def _size_of_channel(module: Any) -> torch.Tensor:
    sizes = torch.tensor(field_sizes(module.in_type))
    return sizes.repeat_interleave(sizes)
