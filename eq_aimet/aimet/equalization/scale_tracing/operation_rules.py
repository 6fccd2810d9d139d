"""How scales pass through torch's operations, as torch's dispatcher sees them (`aten::relu`, `aten::add` …).

A rule gets one call of an operation. It returns the scale variables of the output: the variables of the
inputs, moved as the operation moves the values. If a positive scale does not pass, it returns the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from eq_aimet.aimet.equalization.scale_tracing.operation_calls import INVARIANT, Call, Result
from eq_aimet.aimet.equalization.scale_tracing.scale_variables import compact, spread

__all__ = ["apply_rule"]


def apply_rule(call: Call) -> Result:
    """Return the scale variables of an operation's output, or the reason why no scale passes it."""
    rule = _RULES.get(call.name)
    if rule is None:
        return ""
    try:
        return rule(call)
    except (RuntimeError, TypeError, IndexError, ValueError):
        # The operation was called in a way that the rule does not know.
        return ""


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _elementwise(call: Call) -> Result:
    ids = call.first_alone()
    return "" if ids is None else ids


def _cast(call: Call) -> Result:
    return _elementwise(call) if call.output.is_floating_point() else ""


def _clamp(call: Call) -> Result:
    bounds = [bound for bound in (call.argument(1, "min"), call.argument(2, "max")) if bound is not None]
    return _elementwise(call) if all(not _is_tensor(b) and b == 0 for b in bounds) else ""


def _threshold(call: Call) -> Result:
    return _elementwise(call) if call.args[1] == call.args[2] == 0 else ""


def _comparison(call: Call) -> Result:
    return INVARIANT if not _is_tensor(call.args[1]) and call.args[1] == 0 else ""


def _moved(call: Call) -> Result:
    """Move the variables as the operation moves the values."""
    ids = call.first_alone()
    if ids is None:
        return ""
    args, kwargs = tree_map_only(torch.Tensor, torch.Tensor.cpu, (call.args[1:], call.kwargs))
    moved = call.function(ids, *args, **kwargs)
    if isinstance(moved, torch.Tensor):
        return spread(moved, call.output.shape)
    return [spread(part, output.shape) for part, output in zip(moved, call.output, strict=True)]


def _reshaped(call: Call) -> Result:
    ids = call.first_alone()
    if ids is None or not isinstance(call.args[1], (list, tuple)):
        return ""
    return spread(ids.reshape(call.output.shape), call.output.shape)


def _restrided(call: Call) -> Result:
    """Pass new strides that keep each entry in its place; pooling to 1×1 sets such strides."""
    ids, output = call.first_alone(), call.output
    if ids is None or ids.shape != output.shape:
        return ""
    usual = torch.empty(output.shape, device="meta").stride()
    same = (size == 1 or s == u for size, s, u in zip(output.shape, output.stride(), usual, strict=True))
    return ids if all(same) and output.storage_offset() == 0 else ""


def _expanded(call: Call) -> Result:
    ids = call.first_alone()
    return "" if ids is None else ids.expand(call.output.shape)


def _padded(call: Call) -> Result:
    """Pad with zeros, which any scale leaves at zero: they get variables of their own where it matters."""
    ids, pad = call.first_alone(), call.args[1]
    if ids is None or call.argument(2, "value", 0) != 0:
        return ""
    dims = {ids.dim() - 1 - position // 2 for position, width in enumerate(pad) if width}
    if all(ids.stride(dim) == 0 or ids.shape[dim] == 1 for dim in dims):
        return call.variables.join_along(ids, dims).expand(call.output.shape)
    padded = torch.nn.functional.pad(ids.contiguous(), pad, value=-1)
    padded[padded < 0] = call.variables.new(int((padded < 0).sum()))
    return spread(padded, call.output.shape)


def _reduced(call: Call) -> Result:
    ids = call.first_alone()
    if ids is None:
        return ""
    output = call.output[0] if isinstance(call.output, (tuple, list)) else call.output
    position = 2 if call.name == "linalg_vector_norm" else 1
    given = call.argument(position, "dim")
    if _is_tensor(given):
        return ""
    dims = [given] if isinstance(given, int) else list(given or range(ids.dim()))
    dims = [dim % max(ids.dim(), 1) for dim in dims]
    kept = call.variables.join_along(ids, dims)
    if output.dim() != ids.dim():
        kept = kept.squeeze(dims) if dims else kept
    reduced = kept.expand(output.shape)
    return [reduced] if isinstance(call.output, (tuple, list)) else reduced


def _cumulated(call: Call) -> Result:
    ids = call.first_alone()
    return "" if ids is None else call.variables.join_along(ids, [call.args[1]]).expand(ids.shape)


def _windows(dims: int) -> Callable[[Call], Result]:
    """Return the rule of pooling, resizing and padding, which mix the entries of the last dimensions."""

    def rule(call: Call) -> Result:
        ids = call.first_alone()
        if ids is None:
            return ""
        output = call.output[0] if isinstance(call.output, (tuple, list)) else call.output
        kept = call.variables.join_along(ids, range(ids.dim() - dims, ids.dim())).expand(output.shape)
        return [kept] if isinstance(call.output, (tuple, list)) else kept

    return rule


def _channel_wise(call: Call) -> Result:
    """Pass a convolution of each channel with a constant filter, such as a blur."""
    ids, weight, bias, transposed, groups = call.ids(0), *call.args[1:3], call.args[6], call.args[8]
    if ids is None or bias is not None or transposed or groups != ids.shape[1] or call.first_alone() is None:
        return ""
    kept = call.variables.join_along(ids, range(2, ids.dim()))
    return spread(kept.repeat_interleave(weight.shape[0] // groups, 1), call.output.shape)


def _joined(*positions: int) -> Callable[[Call], Result]:
    """Return the rule of operations, such as sums, that commute with a scale that all operands share."""

    def rule(call: Call) -> Result:
        operands = [call.args[position] for position in positions if position < len(call.args)]
        known = [ids for ids in map(call.tracer.ids_of, operands) if ids is not None]
        if not known:
            return ""
        shared = known[0].expand(call.output.shape)
        for ids in known[1:]:
            call.variables.join(shared, ids)
        for operand in operands:
            if call.tracer.ids_of(operand) is None:
                reason = _scales_along(call, operand, shared)
                if reason:
                    return reason
        return shared

    return rule


def _scales_along(call: Call, operand: Any, ids: torch.Tensor) -> str:
    """Let an operand without scale variables scale along; return why it cannot, or an empty string."""
    if not _is_tensor(operand):
        return "" if operand == 0 else f"joins it with the number {operand}, which does not scale along"
    barrier = call.tracer.keeps_scale(operand)
    if barrier:
        return f"joins it with what keeps its scale: {barrier}"
    part = compact(operand)
    lined_up = part[(None,) * (ids.dim() - part.dim())]
    own = call.variables.join_along(ids, [dim for dim, size in enumerate(lined_up.shape) if size == 1])
    return call.tracer.scale_along(part, own.reshape(part.shape))


def _product(call: Call) -> Result:
    first, second = call.ids(0), call.ids(1)
    if first is not None and second is not None:
        return "multiplies two activations that both scale"
    factor = second if first is None else first
    return "" if factor is None else factor.expand(call.output.shape)


def _quotient(call: Call) -> Result:
    dividend = call.first_alone()
    if dividend is None or call.kwargs.get("rounding_mode"):
        return ""
    return dividend.expand(call.output.shape)


def _concatenated(call: Call) -> Result:
    dim = call.argument(1, "dim", 0) % call.output.dim()
    parts = []
    for tensor in call.args[0]:
        ids = call.tracer.ids_of(tensor)
        if ids is None:
            ids = call.variables.new(1).expand(tensor.shape)
            reason = call.tracer.keeps_scale(tensor) or "it is concatenated with a constant"
            call.variables.fix(ids, reason)
        parts.append(ids)
    if call.name == "stack":
        return spread(torch.stack(parts, dim), call.output.shape)
    for other in range(call.output.dim()):
        if other != dim and all(part.stride(other) == 0 or part.shape[other] == 1 for part in parts):
            parts = [part.narrow(other, 0, 1) for part in parts]
    return spread(torch.cat(parts, dim), call.output.shape)


def _each(names: str, rule: Callable[[Call], Result]) -> dict[str, Callable[[Call], Result]]:
    return dict.fromkeys(names.split(), rule)


_RULES: dict[str, Callable[[Call], Result]] = {
    **_each("relu leaky_relu _prelu_kernel prelu rrelu neg abs clone contiguous alias", _elementwise),
    **_each("detach lift_fresh positive tril triu", _elementwise),
    **_each("_to_copy to", _cast),
    **_each("clamp clamp_min clamp_max", _clamp),
    **_each("threshold", _threshold),
    **_each("gt ge lt le eq ne", _comparison),
    **_each("permute transpose t squeeze unsqueeze movedim moveaxis swapaxes flip roll rot90", _moved),
    **_each("select slice narrow split split_with_sizes unbind chunk index index_select gather", _moved),
    **_each("repeat tile diagonal unfold pixel_shuffle pixel_unshuffle channel_shuffle", _moved),
    **_each("view _unsafe_view _reshape_alias reshape", _reshaped),
    **_each("expand", _expanded),
    **_each("as_strided", _restrided),
    **_each("constant_pad_nd", _padded),
    **_each("mean sum amax amin max min linalg_vector_norm", _reduced),
    **_each("cumsum", _cumulated),
    **_each("max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d", _windows(1)),
    **_each("upsample_nearest1d _upsample_nearest_exact1d upsample_linear1d", _windows(1)),
    **_each("reflection_pad1d replication_pad1d", _windows(1)),
    **_each("avg_pool2d max_pool2d max_pool2d_with_indices", _windows(2)),
    **_each("adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d", _windows(2)),
    **_each("upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d", _windows(2)),
    **_each("upsample_bicubic2d _upsample_bilinear2d_aa reflection_pad2d replication_pad2d", _windows(2)),
    **_each("grid_sampler_2d", _windows(2)),
    **_each("convolution", _channel_wise),
    **_each("add sub rsub maximum minimum", _joined(0, 1)),
    **_each("where", _joined(1, 2)),
    **_each("mul", _product),
    **_each("div", _quotient),
    **_each("cat stack", _concatenated),
}
