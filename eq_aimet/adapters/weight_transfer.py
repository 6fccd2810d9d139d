"""Carrying the trained weights of an e2cnn network over to the same network in escnn.

The weights of a convolution are coefficients of a basis, and the bases of the two libraries differ. So this
module transfers the filters: each convolution of escnn gets the coefficients that give the filter of e2cnn's
convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from eq_aimet.adapters.libraries import library_of
from eq_aimet.errors import InvalidArgumentError

__all__ = ["carry_weights"]

# The largest part of a filter that escnn's float32 basis may miss, relative to the filter's largest weight.
_TOLERANCE = 1e-5


def carry_weights(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give `target`, a network in escnn, the weights and statistics of `source`, in place.

    Both networks have the same modules under the same names. Each convolution of `target` gets the
    coefficients that give the filter and the bias of `source`. All other parameters and statistics are
    copied. If one tensor does not fit, `target` keeps all its values.

    Args:
        source: The trained network in e2cnn. To carry over a state dict, load it into the network first.
        target: The network in escnn.

    Raises:
        InvalidArgumentError: If a layer of one network is missing in the other or has another shape, or if
            the basis of a convolution of `target` does not contain the filter of `source`. The text names
            the layers.

    Example:
        >>> from eq_aimet.models import EquivariantMobileNetV2
        >>> options = {"width": 0.25, "group": 4, "input_size": 33}
        >>> old = EquivariantMobileNetV2(**options, library="e2cnn").eval()
        >>> new = EquivariantMobileNetV2(**options, library="escnn").eval()
        >>> carry_weights(old, new)
        >>> x = torch.rand(1, 3, 33, 33)
        >>> torch.allclose(old(x), new(x), rtol=1e-3, atol=1e-5)
        True
    """
    _check_network("source", source, "e2cnn")
    _check_network("target", target, "escnn")
    sources = dict(source.named_modules())
    values: list[tuple[torch.Tensor, torch.Tensor]] = []
    faults: list[str] = []
    with torch.no_grad():
        for name, module in target.named_modules():
            found = _values(sources.get(name), module)
            if isinstance(found, str):
                faults.append(f"`{name or 'target'}`: {found}")
            else:
                values += found
        if faults:
            raise InvalidArgumentError(
                "target",
                received=f"a network that can't take the weights of `source`: {'; '.join(faults)}",
                expected="the same modules under the same names, and convolutions whose bases contain the "
                "filters of `source`",
                remedy="Build both networks from one definition. If a basis misses a part, give the `R2Conv` "
                "of escnn a higher `frequencies_cutoff`, or train the named layers anew.",
            )
        for place, value in values:
            place.copy_(value.reshape(place.shape))
    _rebuild_filters(target)


def _check_network(argument: str, model: torch.nn.Module, package: str) -> None:
    libraries = {
        library.package
        for library in map(library_of, model.modules() if isinstance(model, torch.nn.Module) else ())
        if library is not None
    }
    if libraries != {package}:
        raise InvalidArgumentError(
            argument,
            received=f"a network with modules of {' and '.join(sorted(libraries)) or 'neither library'}",
            expected=f"a network with modules of {package} and torch",
            remedy="Weights are carried from e2cnn to escnn: `carry_weights(source, target)`.",
        )


def _values(
    source: torch.nn.Module | None, target: torch.nn.Module
) -> list[tuple[torch.Tensor, torch.Tensor]] | str:
    """Return the own tensors of `target` with their new values, or the reason why the transfer fails."""
    if hasattr(target, "basisexpansion"):
        if not hasattr(source, "basisexpansion"):
            return "`source` has no convolution of this name"
        return _coefficients(source, target)
    own = [*_own_tensors(target)]
    missing = [name for name, _ in own if not isinstance(getattr(source, name, None), torch.Tensor)]
    if missing:
        return f"`source` has no {', '.join(missing)}"
    pairs = [(value, getattr(source, name)) for name, value in own]
    different = [name for name, value in own if value.numel() != getattr(source, name).numel()]
    return f"{', '.join(different)} has another shape in `source`" if different else pairs


def _own_tensors(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Return the parameters and statistics of a module, without its indices and bases."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.requires_grad:
            yield name, parameter
    for name, buffer in module.named_buffers(recurse=False):
        if "running_" in name or name == "num_batches_tracked":
            yield name, buffer


def _coefficients(source: Any, target: Any) -> list[tuple[torch.Tensor, torch.Tensor]] | str:
    filters, expanded_bias = source.expand_parameters()
    current, current_bias = target.expand_parameters()
    if filters.shape != current.shape or (expanded_bias is None) != (current_bias is None):
        return f"filter of shape {tuple(current.shape)}, and {tuple(filters.shape)} in `source`"
    kernel = filters if target.in_type.size == filters.shape[1] * target.groups else filters.transpose(0, 1)
    weights, missed = _project(kernel.flatten(2).double(), target.basisexpansion, target.weights)
    largest = float(filters.abs().max())
    if missed > _TOLERANCE * largest:
        return f"its basis misses up to {missed / largest:.1e} of the filter"
    pairs = [(target.weights, weights)]
    if expanded_bias is not None:
        columns = target.bias_expansion.double()
        bias = torch.linalg.lstsq(columns, expanded_bias.double()[:, None]).solution[:, 0]
        pairs.append((target.bias, bias))
    return pairs


def _project(kernel: torch.Tensor, expansion: Any, like: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the coefficients of a kernel of shape (out, in, points), and the largest missed weight."""
    weights = torch.zeros_like(like, dtype=torch.float64)
    missed = kernel.clone()
    rows, columns = _starts(expansion._out_reprs), _starts(expansion._in_reprs)
    for pair in expansion._representations_pairs:
        block = getattr(expansion, f"block_expansion_{expansion._escape_pair(pair)}")
        basis = block.sampled_basis.double()  # [elements, out, in, points]
        size_out, size_in = basis.shape[1:3]
        places = [
            (slice(row, row + size_out), slice(column, column + size_in))
            for row in rows[pair[1]]
            for column in columns[pair[0]]
        ]
        blocks = torch.stack([kernel[place] for place in places])  # [blocks, out, in, points]
        found = torch.linalg.lstsq(basis.flatten(1).t(), blocks.flatten(1).t()).solution.t()
        start, end = expansion._weights_ranges[pair]
        weights[start:end] = found.flatten()  # [blocks, elements]
        for place, rest in zip(places, blocks - torch.einsum("nb,bois->nois", found, basis), strict=True):
            missed[place] = rest
    return weights, float(missed.abs().max())


def _starts(representations: Sequence[Any]) -> dict[str, list[int]]:
    """Return the positions of the first channels of the fields of each name."""
    places: dict[str, list[int]] = {}
    start = 0
    for representation in representations:
        places.setdefault(representation.name, []).append(start)
        start += representation.size
    return places


def _rebuild_filters(model: torch.nn.Module) -> None:
    """Rebuild the filters of convolutions in eval mode, because the library keeps the old filters."""
    for module in model.modules():
        if hasattr(module, "basisexpansion") and not module.training:
            module.train()
            module.eval()
