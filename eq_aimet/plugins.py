"""The plugin manager: the support of e2cnn and escnn, and third parties' plugins, come through one door."""

from __future__ import annotations

from functools import cache

import pluggy
import torch

from eq_aimet import hookspecs
from eq_aimet.adapters.libraries import package_of
from eq_aimet.adapters.refusals import place_of
from eq_aimet.errors import EqAimetError, PluginError
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks
from eq_aimet.symmetry.layers import channel_counts

__all__ = ["layer_blocks", "plain_module", "plugin_manager"]


@cache
def plugin_manager() -> pluggy.PluginManager:
    """Return the one plugin manager, with all installed plugins of the entry-point group `eq_aimet` loaded.

    A plugin of your own that is not installed is registered by `plugin_manager().register(plugin)`.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    manager.load_setuptools_entrypoints(hookspecs.PROJECT_NAME)
    return manager


def layer_blocks(module: torch.nn.Module) -> LayerBlocks | None:
    """Return the rotation blocks of a layer, or `None` if it has none.

    Blocks that `export_model` or `tag_blocks` put on the layer come first, then the plugins are asked.

    Raises:
        PluginError: If a plugin fails, or does not return blocks that fit the layer.

    Example:
        >>> import torch
        >>> layer_blocks(torch.nn.Conv2d(4, 4, 1)) is None
        True
    """
    stored = stored_blocks(module)
    if stored is not None:
        return stored
    blocks = _ask("eq_aimet_layer_blocks", module)
    if blocks is None:
        return None
    expected = "a LayerBlocks, or None for a layer that the plugin does not know"
    if not isinstance(blocks, LayerBlocks):
        raise _wrong_result("eq_aimet_layer_blocks", module, f"a {type(blocks).__name__}", expected)
    counts = channel_counts(module)
    sizes = sum(blocks.blocks_in), sum(blocks.blocks_out)
    if counts is not None and sizes != counts:
        raise _wrong_result(
            "eq_aimet_layer_blocks",
            module,
            f"blocks of {sizes[0]} input and {sizes[1]} output channels",
            f"blocks that add up to the layer's {counts[0]} input and {counts[1]} output channels",
        )
    return blocks


def plain_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the plain twin of an equivariant module by the first plugin that knows it, or `None`.

    Raises:
        PluginError: If a plugin fails, or its result is no plain module of its own.
        ExportError: If the module has no exact plain equivalent.
    """
    plain = _ask("eq_aimet_export_module", module)
    if plain is None:
        return None
    hook, expected = (
        "eq_aimet_export_module",
        "a torch.nn.Module, or None for a module that the plugin does not know",
    )
    if not isinstance(plain, torch.nn.Module):
        raise _wrong_result(hook, module, f"a {type(plain).__name__}", expected)
    foreign = next((part for part in plain.modules() if package_of(part) is not None), None)
    if foreign is not None:
        raise _wrong_result(
            hook, module, f"a module with a {type(foreign).__name__} in it", "plain modules only"
        )
    if _storages(plain) & _storages(module):
        raise _wrong_result(
            hook, module, "a module that shares its weights", "a module with weights of its own (`clone()`)"
        )
    return plain


def _ask(hook: str, module: torch.nn.Module) -> object:
    """Return the first result of a hook that is not `None`."""
    try:
        result: object = getattr(plugin_manager().hook, hook)(module=module)
    except EqAimetError:
        raise
    except Exception as error:
        raise PluginError(
            f"A plugin's `{hook}` fails for a {type(module).__name__} at {place_of(error)} "
            f"({type(error).__name__}: {error}). Correct the plugin, or unregister it."
        ) from error
    return result


def _wrong_result(hook: str, module: torch.nn.Module, received: str, expected: str) -> PluginError:
    return PluginError(
        f"A plugin's `{hook}` returned {received} for a {type(module).__name__}; expected {expected}. "
        "Correct the plugin, or unregister it."
    )


def _storages(module: torch.nn.Module) -> set[int]:
    values = [*module.parameters(), *module.buffers()]
    return {value.untyped_storage().data_ptr() for value in values if value.numel()} - {0}
