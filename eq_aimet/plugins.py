"""The plugin manager: the built-in e2cnn support and third parties' plugins come through the same door."""

from __future__ import annotations

from functools import cache

import pluggy
import torch

from eq_aimet import hookspecs
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks

__all__ = ["layer_blocks", "plugin_manager"]


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

    What `export_model` or `tag_blocks` put on the layer comes first, then the plugins are asked.

    Example:
        >>> import torch
        >>> layer_blocks(torch.nn.Conv2d(4, 4, 1)) is None
        True
    """
    stored = stored_blocks(module)
    if stored is not None:
        return stored
    blocks = plugin_manager().hook.eq_aimet_layer_blocks(module=module)
    assert blocks is None or isinstance(blocks, LayerBlocks)
    return blocks
