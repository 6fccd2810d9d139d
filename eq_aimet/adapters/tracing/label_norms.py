"""Batch norms of fields by label, merged into one norm before the branches, which AIMET can fold.

A `MultipleModule` gives each label of fields a norm of its own. In the plain graph several selections of
channels read one tensor, and a batch norm follows each of them. A batch norm scales and shifts each channel
independently. So one norm over all channels, directly after the convolution and before the selections,
computes the same values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from eq_aimet.adapters.tracing.graphs import TracedGraph
from eq_aimet.plain import Concat, SelectChannels
from eq_aimet.symmetry.actions import Action
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks, tag_blocks

__all__ = ["merge_label_norms"]

_STATISTICS = ("running_mean", "running_var", "weight", "bias")


@dataclass(frozen=True)
class _Branch:
    """A selection of channels, and its batch norm if this norm is the only reader of the selection."""

    selection: fx.Node
    channels: torch.Tensor
    norm_call: fx.Node | None
    norm: torch.nn.BatchNorm2d | None


def merge_label_norms(traced: TracedGraph, modules: dict[str, torch.nn.Module]) -> None:
    """Merge the batch norms behind selections of one tensor's channels into one norm; works in place.

    Args:
        traced: The graph.
        modules: The modules of the graph by name; the merged norms are added.
    """
    # The loop starts at the last node, so a norm also moves past a reordering of all channels.
    for source in reversed(list(traced.graph.nodes)):
        branches = _branches(traced, modules, source)
        first = next((branch for branch in branches if branch.norm is not None), None)
        if first is None or first.norm_call is None:
            continue
        name = str(first.norm_call.target)
        merged = _merged_norm(branches, int(traced.examples[source].shape[1]))
        for branch in branches:
            if branch.norm_call is not None:
                del modules[str(branch.norm_call.target)]
                branch.norm_call.replace_all_uses_with(branch.selection)
                traced.graph.erase_node(branch.norm_call)
        modules[name] = merged
        with traced.graph.inserting_after(source):
            call = traced.graph.call_module(name, (source,))
        traced.examples[call] = merged(traced.examples[source])
        traced.scopes[call] = traced.scopes.get(first.norm_call, "")
        source.replace_all_uses_with(call, delete_user_cb=lambda user, own=call: user is not own)
    _drop_selections_of_all_channels(traced, modules)


def _branches(traced: TracedGraph, modules: dict[str, torch.nn.Module], source: fx.Node) -> list[_Branch]:
    """Return the branches of `source`, or an empty list if another operation also reads `source`."""
    example = traced.examples.get(source)
    if not isinstance(example, torch.Tensor) or example.dim() != 4 or not source.users:
        return []
    branches = []
    for user in source.users:
        selection = _module_of(modules, user)
        if not isinstance(selection, SelectChannels):
            return []
        reader = next(iter(user.users)) if len(user.users) == 1 else None
        norm = None if reader is None else _module_of(modules, reader)
        if not isinstance(norm, torch.nn.BatchNorm2d) or norm.running_mean is None or not norm.affine:
            reader = norm = None
        elif sum(node.target == reader.target for node in traced.graph.nodes if reader is not None) > 1:
            reader = norm = None  # another node also calls this norm
        branches.append(_Branch(user, _channels(selection), reader, norm))
    every = torch.cat([branch.channels for branch in branches])
    return branches if len(every.unique()) == len(every) else []


def _module_of(modules: dict[str, torch.nn.Module], node: fx.Node) -> torch.nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


def _channels(selection: SelectChannels) -> torch.Tensor:
    if selection.channels is None:
        return torch.arange(selection.start, selection.stop)
    return selection.channels.cpu()


def _merged_norm(branches: list[_Branch], channels: int) -> torch.nn.BatchNorm2d:
    """Return the norm over all channels; channels without a norm keep their values."""
    norms = [branch.norm for branch in branches if branch.norm is not None]
    eps = min(norm.eps for norm in norms)
    like = norms[0].weight
    merged = torch.nn.BatchNorm2d(channels, eps, norms[0].momentum, device=like.device, dtype=like.dtype)
    merged.requires_grad_(any(norm.weight.requires_grad for norm in norms))
    with torch.no_grad():
        merged.running_var.fill_(1.0)  # type: ignore[union-attr]
        merged.weight.fill_((1.0 + eps) ** 0.5)
        for branch in branches:
            if branch.norm is None:
                continue
            for name in _STATISTICS:
                values = getattr(branch.norm, name).detach()
                if name == "running_var":
                    values = values + (branch.norm.eps - eps)
                getattr(merged, name)[branch.channels.to(like.device)] = values
    blocks = _merged_blocks(branches, channels)
    if blocks is not None:
        tag_blocks(merged, blocks.blocks_in, blocks.blocks_out, actions=blocks.actions)
    return merged.eval()


def _merged_blocks(branches: list[_Branch], channels: int) -> LayerBlocks | None:
    """Return the blocks of all channels, or `None` if a branch has no blocks or no adjacent blocks."""
    size_at: dict[int, int] = {}
    parts: list[tuple[torch.Tensor, tuple[Action, ...]]] = []
    for branch in branches:
        blocks = None if branch.norm is None else stored_blocks(branch.norm)
        if blocks is None:
            return None
        start = 0
        for size in blocks.blocks_out:
            places = branch.channels[start : start + size].tolist()
            if places != list(range(places[0], places[0] + size)):
                return None
            size_at[places[0]] = size
            start += size
        parts.append((branch.channels, blocks.actions))
    if sum(size_at.values()) != channels:
        return None
    sizes = tuple(size_at[start] for start in sorted(size_at))
    return LayerBlocks(sizes, sizes, _merged_actions(parts, channels))


def _merged_actions(
    parts: list[tuple[torch.Tensor, tuple[Action, ...]]], channels: int
) -> tuple[Action, ...]:
    turns = [[(action.turns, action.flip) for action in actions] for _, actions in parts]
    if any(other != turns[0] for other in turns):
        return ()
    merged = []
    for position, (turn, flip) in enumerate(turns[0]):
        moved = torch.arange(channels)
        for places, actions in parts:
            moved[places] = places[torch.tensor(actions[position].permutation_out)]
        permutation = tuple(moved.tolist())
        merged.append(Action(permutation, permutation, turn, flip))
    return tuple(merged)


def _drop_selections_of_all_channels(traced: TracedGraph, modules: dict[str, torch.nn.Module]) -> None:
    """Replace, in place, a concatenation that restores the channel order of its source by this source."""
    for node in list(traced.graph.nodes):
        joined = _module_of(modules, node)
        if not isinstance(joined, Concat) or joined.dim != 1:
            continue
        selections = [_module_of(modules, part) for part in node.all_input_nodes]
        if len(selections) != len(node.args) or not all(isinstance(s, SelectChannels) for s in selections):
            continue
        sources = {part.args[0] for part in node.all_input_nodes}
        order = torch.cat([_channels(s) for s in selections if isinstance(s, SelectChannels)])
        source = sources.pop()
        if sources or not isinstance(source, fx.Node):
            continue
        if torch.equal(order, torch.arange(traced.examples[source].shape[1])):
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
            for part in [user for user in source.users if not user.users]:
                traced.graph.erase_node(part)
