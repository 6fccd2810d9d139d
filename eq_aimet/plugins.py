"""The plugin manager: it loads the support of e2cnn and escnn, and the plugins of third parties."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import pluggy
import torch

from eq_aimet import hookspecs
from eq_aimet.adapters.libraries import package_of
from eq_aimet.adapters.tracing.refusals import place_of
from eq_aimet.errors import EqAimetError, PluginError
from eq_aimet.symmetry.blocks import LayerBlocks, stored_blocks
from eq_aimet.symmetry.layers import channel_counts

__all__ = ["ask_plugins", "layer_blocks", "plain_module", "plugin_manager", "tell_plugins", "wrong_answer"]


@cache
def plugin_manager() -> pluggy.PluginManager:
    """Return the one plugin manager, with all installed plugins of the entry-point group `eq_aimet` loaded.

    To register a plugin of your own that is not installed, call `plugin_manager().register(plugin)`.

    Raises:
        PluginError: If an installed plugin cannot be loaded.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT_NAME)
    manager.add_hookspecs(hookspecs)
    try:
        manager.load_setuptools_entrypoints(hookspecs.PROJECT_NAME)
    except Exception as error:
        raise PluginError(
            f"An installed plugin of the entry-point group `{hookspecs.PROJECT_NAME}` cannot be loaded, at "
            f"{place_of(error)} ({type(error).__name__}: {error}). Correct the plugin, or uninstall it."
        ) from error
    return manager


def layer_blocks(module: torch.nn.Module) -> LayerBlocks | None:
    """Return the rotation blocks of a layer, or `None` if the layer has no blocks.

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
    plugin, blocks = _first_answer("eq_aimet_layer_blocks", module)
    if blocks is None:
        return None
    wrong = partial(wrong_answer, plugin, "eq_aimet_layer_blocks", place=f" for a {type(module).__name__}")
    if not isinstance(blocks, LayerBlocks):
        raise wrong(f"a {type(blocks).__name__}", "a LayerBlocks, or None for a layer that it does not know")
    counts = channel_counts(module)
    sizes = sum(blocks.blocks_in), sum(blocks.blocks_out)
    if counts is not None and sizes != counts:
        raise wrong(
            f"blocks of {sizes[0]} input and {sizes[1]} output channels",
            f"blocks that add up to the layer's {counts[0]} input and {counts[1]} output channels",
        )
    return blocks


def plain_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return the plain twin of an equivariant module by the first plugin that knows it, or `None`.

    Raises:
        PluginError: If a plugin fails, or its result is not a new plain module.
        ExportError: If the module has no exact plain equivalent.
    """
    plugin, plain = _first_answer("eq_aimet_export_module", module, passed=EqAimetError)
    if plain is None:
        return None
    wrong = partial(wrong_answer, plugin, "eq_aimet_export_module", place=f" for a {type(module).__name__}")
    if not isinstance(plain, torch.nn.Module):
        raise wrong(f"a {type(plain).__name__}", "a torch.nn.Module, or None for a module it does not know")
    foreign = next((part for part in plain.modules() if package_of(part) is not None), None)
    if foreign is not None:
        raise wrong(f"a module with a {type(foreign).__name__} in it", "plain modules only")
    if _storages(plain) & _storages(module):
        raise wrong("a module that shares its weights", "a module with weights of its own (`clone()`)")
    return plain


def ask_plugins(
    hook: str,
    arguments: dict[str, object],
    *,
    place: str = "",
    passed: type[Exception] | tuple[type[Exception], ...] = (),
) -> Iterator[tuple[str, object]]:
    """Call a hook of one plugin after the other; yield each plugin's name and its answer.

    The plugin that was registered last comes first, as pluggy calls them.

    Args:
        hook: The name of the hook.
        arguments: The arguments of the hook.
        place: The place in the model for which the hook is called, for messages.
        passed: The errors that a plugin may raise; they are passed on unchanged.

    Raises:
        PluginError: If a plugin fails.
    """
    manager = plugin_manager()
    found = getattr(manager.hook, hook).get_hookimpls()
    called = [one for one in reversed(found) if not (one.wrapper or one.hookwrapper)]
    for implementation in called:
        others = [other.plugin for other in called if other is not implementation]
        name = _name(implementation)
        try:
            answer = manager.subset_hook_caller(hook, others)(**arguments)
        except passed:
            raise
        except Exception as error:
            raise PluginError(
                f"`{hook}` of the plugin `{name}` fails{place} at {place_of(error)} "
                f"({type(error).__name__}: {error}). Correct the plugin, or unregister it."
            ) from error
        # A hook with `firstresult` returns a single result. Other hooks return a list of results.
        yield name, (answer or [None])[0] if isinstance(answer, list) else answer


def tell_plugins(hook: str, **arguments: object) -> Iterator[str]:
    """Call a hook that returns nothing on one plugin after the other; yield the name of each plugin.

    Raises:
        PluginError: If a plugin fails, or returns a value other than `None`.
    """
    for name, answer in ask_plugins(hook, arguments):
        if answer is not None:
            raise wrong_answer(
                name, hook, f"a {type(answer).__name__}", "None: it changes its arguments in place"
            )
        yield name


def wrong_answer(plugin: str, hook: str, received: str, expected: str, place: str = "") -> PluginError:
    """Return the error for an answer of a plugin that its hook does not allow."""
    return PluginError(
        f"`{hook}` of the plugin `{plugin}` returned {received}{place}; expected {expected}. "
        "Correct the plugin, or unregister it."
    )


def _first_answer(
    hook: str, module: torch.nn.Module, passed: type[Exception] | tuple[type[Exception], ...] = ()
) -> tuple[str, object]:
    """Return the first answer that is not `None`, and the name of the plugin that gives it."""
    place = f" for a {type(module).__name__}"
    answers = ask_plugins(hook, {"module": module}, place=place, passed=passed)
    return next((answer for answer in answers if answer[1] is not None), ("", None))


def _name(implementation: pluggy.HookImpl) -> str:
    """Return the name under which the plugin was registered, or the name of its class."""
    plugin = implementation.plugin
    unnamed = implementation.plugin_name == str(id(plugin))
    return type(plugin).__name__ if unnamed else implementation.plugin_name


def _storages(module: torch.nn.Module) -> set[int]:
    values = [*module.parameters(), *module.buffers()]
    return {value.untyped_storage().data_ptr() for value in values if value.numel()} - {0}
