"""The hooks that third-party plugins may implement, with pluggy and the entry-point group `eq_aimet`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from eq_aimet.deploy.runtimes.runtime import Runtime
    from eq_aimet.symmetry.blocks import LayerBlocks

__all__ = ["PROJECT_NAME", "hookimpl", "hookspec"]

PROJECT_NAME = "eq_aimet"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec(firstresult=True)
def eq_aimet_layer_blocks(module: torch.nn.Module) -> LayerBlocks | None:
    """Return the rotation blocks of a plain layer, or `None` for an unknown layer. The first result wins."""


@hookspec(firstresult=True)
def eq_aimet_export_module(module: torch.nn.Module) -> torch.nn.Module | None:
    """Return a plain module that computes what an equivariant `module` does in eval mode. First result wins.

    The plain module takes and returns plain tensors and shares no storage with `module`. The hook does not
    change `module`. The hook returns `None` for a module that the plugin does not know. Tag each layer that
    has blocks with `tag_blocks` before you return it.
    """


@hookspec
def eq_aimet_cls_sets(model: torch.nn.Module, cls_sets: list[tuple[torch.nn.Module, ...]]) -> None:
    """Change the list of CLS sets in place before they are scaled: add or remove tuples of layers."""


@hookspec
def eq_aimet_equalized(model: torch.nn.Module, report: Any) -> None:
    """Look at the model and its `EqualizationReport` after `equalize_equivariant` has changed it."""


@hookspec
def eq_aimet_runtimes() -> Mapping[str, Callable[[], Runtime]]:  # type: ignore[empty-body]
    """Return runtimes for `verify_onnx(…, runtimes=…)`: for each name, a function that returns the runtime.

    `verify_onnx` calls the function when the user requests the runtime. The function raises
    `MissingPackageError`, with the command that installs the package, if the runtime is not installed.
    """
