"""Orbits: the weights that the exact group elements map onto each other, as one index tensor.

Tying, checking, shared scales and compact storage are all uses of this index.
"""

from __future__ import annotations

import torch

from eq_aimet.errors import AsymmetryError, InvalidArgumentError
from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks
from eq_aimet.symmetry.layers import is_transposed
from eq_aimet.symmetry.orbit_numbers import orbit_index

__all__ = ["asymmetry", "is_symmetric", "remove_rounding", "symmetrize", "weight_orbits"]

ROUNDING = 1e-5  # the rounding of a sum of float32 products, relative to a layer's largest value


def weight_orbits(layer: torch.nn.Module, blocks: LayerBlocks | None = None) -> torch.Tensor:
    """Return the orbit of each weight of a tagged layer, an int64 tensor of the weight's shape.

    Args:
        layer: A convolution or linear layer.
        blocks: The layer's blocks. If they are left out, the blocks that are stored on the layer are used.

    Raises:
        InvalidArgumentError: If the layer has no weight or carries no blocks.
    """
    blocks = stored_blocks(layer) if blocks is None else blocks
    weight = getattr(layer, "weight", None)
    if blocks is None or not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        raise InvalidArgumentError(
            "layer",
            received=f"a {type(layer).__name__} without blocks",
            expected="a convolution or linear layer that carries rotation blocks",
            remedy="Export the model with `export_model`, or tag the layer with `tag_blocks`.",
        )
    groups = int(getattr(layer, "groups", 1))
    return orbit_index(tuple(weight.shape), blocks, groups=groups, transposed=is_transposed(layer))


def bias_orbits(blocks: LayerBlocks) -> torch.Tensor:
    """Return the orbit of each output channel's bias, an int64 tensor of shape (out,)."""
    channels = sum(blocks.blocks_out)
    diagonal = LayerBlocks(
        (1,), blocks.blocks_out, tuple(Action((0,), action.permutation_out) for action in blocks.actions)
    )
    return orbit_index((channels, 1), diagonal).flatten()


def orbit_means(values: torch.Tensor, orbits: torch.Tensor) -> torch.Tensor:
    """Return `values` with each orbit replaced by its mean; shape and dtype as `values`.

    The members of an orbit get the same bits, on any processor: the mean is computed once and copied. An
    orbit whose values are already equal is not changed.
    """
    flat = orbits.flatten().to(values.device)
    count = int(flat.max()) + 1
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    sums.scatter_add_(0, flat, values.detach().flatten().double())
    sizes = torch.bincount(flat, minlength=count)
    means = (sums / sizes)[flat].reshape(values.shape).to(values.dtype)
    differs = (orbit_spreads(values, orbits) != 0)[flat].reshape(values.shape)
    return torch.where(differs, means, values.detach())


def orbit_spreads(values: torch.Tensor, orbits: torch.Tensor) -> torch.Tensor:
    """Return the largest minus the smallest value of each orbit, a tensor of shape (orbits,)."""
    flat, values = orbits.flatten().to(values.device), values.detach().flatten()
    empty = values.new_zeros(int(flat.max()) + 1)
    largest = empty.scatter_reduce(0, flat, values, "amax", include_self=False)
    return largest - empty.scatter_reduce(0, flat, values, "amin", include_self=False)


def asymmetry(model: torch.nn.Module) -> float:
    """Return the largest difference of two values of one orbit in `model`, relative to its layer's largest.

    Args:
        model: A network, or a single layer. Weights and biases are compared, and a batch norm's running
            statistics.

    Raises:
        InvalidArgumentError: If no layer of the model carries actions.

    Example:
        >>> import torch
        >>> from eq_aimet import Action, asymmetry, tag_blocks
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> handle = tag_blocks(layer, 2, 1, actions=[Action((1, 0), (0,))])
        >>> layer.weight.data = torch.tensor([[4.0, 3.0]])
        >>> asymmetry(layer)
        0.25
    """
    return max(layer_asymmetry(layer) for _, layer in _layers_with_actions(model))


def is_symmetric(model: torch.nn.Module, tolerance: float = 0.0) -> bool:
    """Return whether the values of each orbit are equal in all of `model`, up to a relative `tolerance`.

    Args:
        model: A network, or a single layer.
        tolerance: The largest difference allowed, relative to the largest value of the layer.

    Raises:
        InvalidArgumentError: If no layer of the model carries actions.

    Example:
        >>> import torch
        >>> from eq_aimet import is_symmetric, symmetrize, tag_blocks
        >>> from eq_aimet.symmetry import regular_actions
        >>> convolution = torch.nn.Conv2d(1, 4, 3)
        >>> actions = regular_actions([1], [4], order=4, kernel_size=3)
        >>> handle = tag_blocks(convolution, [1], [4], actions=actions)
        >>> is_symmetric(convolution)
        False
        >>> symmetrize(convolution)
        >>> is_symmetric(convolution)
        True
    """
    return asymmetry(model) <= tolerance


def symmetrize(model: torch.nn.Module) -> None:
    """Replace each value by its orbit's mean, in place, in every layer of `model` that carries actions.

    This is the orthogonal projection onto the symmetric weights (averaging over the exact group elements).
    Afterwards the values of an orbit have the same bits. If an orbit's values had the same bits before, the
    function does not change these values.

    Args:
        model: A network, or a single layer. Weights and biases are projected, and a batch norm's running
            statistics.

    Raises:
        InvalidArgumentError: If no layer of the model carries actions.

    Example:
        >>> import torch
        >>> from eq_aimet import symmetrize, tag_blocks
        >>> from eq_aimet.symmetry import Action
        >>> swap = Action(permutation_in=(1, 0), permutation_out=(0,))
        >>> layer = torch.nn.Linear(2, 1)
        >>> handle = tag_blocks(layer, 2, 1, actions=[swap])
        >>> symmetrize(layer)
        >>> bool(layer.weight[0, 0] == layer.weight[0, 1])
        True
    """
    with torch.no_grad():
        for _, layer in _layers_with_actions(model):
            for values, orbits in _tied_values(layer):
                values.copy_(orbit_means(values, orbits))


def layer_asymmetry(layer: torch.nn.Module) -> float:
    """Return the `asymmetry` of one layer; 0.0 for a layer without actions, whose values are not tied."""
    worst = 0.0
    for values, orbits in _tied_values(layer):
        largest = float(values.detach().abs().max())
        if largest > 0:
            worst = max(worst, float(orbit_spreads(values, orbits).max()) / largest)
    return worst


def remove_rounding(model: torch.nn.Module, tolerance: float = ROUNDING) -> None:
    """Project `model` onto its symmetric weights, in place, if their asymmetry is no more than rounding.

    Sums and products of one orbit's values round differently on different processors. After this call the
    values of an orbit are equal, bit for bit, on every processor. A model without actions is not changed.

    Args:
        model: A network whose weights were computed to be symmetric.
        tolerance: The difference that counts as rounding, relative to the largest value of the layer.

    Raises:
        AsymmetryError: If a layer's asymmetry is above `tolerance`. In that case no layer is changed.
    """
    layers = [
        (name, layer, difference)
        for name, layer in model.named_modules()
        if (difference := layer_asymmetry(layer)) > 0.0
    ]
    for name, layer, difference in layers:
        if not difference <= tolerance:
            raise AsymmetryError(
                f"`{name or type(layer).__name__}`: its actions say that the group ties its weights, but "
                f"tied weights differ by {difference:.1e} of the largest one. Rounding explains at most "
                f"{tolerance:.0e}. Correct the `actions` of its `tag_blocks`, or call `symmetrize` on the "
                "layer if the weights should be tied."
            )
    for _, layer, _ in layers:
        symmetrize(layer)


def _layers_with_actions(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    tagged = [
        (name, module)
        for name, module in model.named_modules()
        if (blocks := stored_blocks(module)) is not None and blocks.actions
    ]
    if not tagged:
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__} in which no layer carries actions",
            expected="a model out of `export_model`, or layers tagged with `tag_blocks(…, actions=…)`",
            remedy="Export the equivariant model first. In a conventional model no weights are tied.",
        )
    return tagged


def _tied_values(layer: torch.nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the weight, the bias and the running statistics of a layer, each with its orbits."""
    blocks = stored_blocks(layer)
    if blocks is None or not blocks.actions:
        return []
    pairs = []
    weight = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.dim() >= 2:
        pairs.append((weight, weight_orbits(layer, blocks)))
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = getattr(layer, name, None)
        if isinstance(values, torch.Tensor) and values.dim() == 1:
            pairs.append((values, bias_orbits(blocks)))
    return pairs
