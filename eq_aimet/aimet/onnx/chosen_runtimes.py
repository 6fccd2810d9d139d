"""The runtimes that `verify_onnx` knows by name: its own runtimes, and the runtimes of plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntime
from eq_aimet.deploy.runtimes.openvino import OpenVino
from eq_aimet.deploy.runtimes.qnn_htp import QnnHtp
from eq_aimet.deploy.runtimes.runtime import Runtime
from eq_aimet.errors import EqAimetError, InvalidArgumentError, PluginError
from eq_aimet.plugins import plugin_manager

__all__ = ["chosen_runtimes"]

_OWN: Mapping[str, Callable[[], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "qnn-htp": QnnHtp,
    "openvino": OpenVino,
}
_HOOK = "eq_aimet_runtimes"


def chosen_runtimes(names: Any) -> list[Runtime]:
    """Return the runtimes of these names.

    Raises:
        InvalidArgumentError: If `names` is empty, is not a tuple or list of known names, or repeats a name.
        MissingPackageError: If a runtime is not installed.
        PluginError: If a plugin's runtime fails, or the plugin's object is not a runtime.
    """
    known = _known_runtimes()
    is_list = isinstance(names, (tuple, list)) and len(names) > 0
    unknown = [name for name in names if not isinstance(name, str) or name not in known] if is_list else []
    if not is_list or unknown or len(set(names)) < len(names):
        raise InvalidArgumentError(
            "runtimes",
            received=repr(unknown[0] if unknown else names),
            expected=f"a tuple of different names out of {', '.join(map(repr, known))}",
            remedy=f'Leave it out for ("onnxruntime",). A plugin adds runtimes by the hook `{_HOOK}`.',
        )
    return [_made(name, known[name]) for name in names]


def _known_runtimes() -> dict[str, Callable[[], Runtime]]:
    known = dict(_OWN)
    try:
        results = plugin_manager().hook.eq_aimet_runtimes()
    except Exception as error:
        raise PluginError(
            f"A plugin's `{_HOOK}` fails ({type(error).__name__}: {error}). Correct the plugin, or "
            "unregister it."
        ) from error
    for result in results:
        is_table = isinstance(result, Mapping) and all(isinstance(name, str) for name in result)
        if not is_table or known.keys() & result.keys() or not all(map(callable, result.values())):
            raise PluginError(
                f"A plugin's `{_HOOK}` returned {result!r}; expected a dictionary of functions by names that "
                "no other runtime has. Correct the plugin, or unregister it."
            )
        known.update(result)
    return known


def _made(name: str, make: Callable[[], Runtime]) -> Runtime:
    try:
        runtime: object = make()
    except EqAimetError:
        raise
    except Exception as error:
        raise PluginError(
            f"The runtime {name!r} of a plugin fails ({type(error).__name__}: {error}). Correct the plugin, "
            "or unregister it."
        ) from error
    if not isinstance(runtime, Runtime):
        raise PluginError(
            f"The runtime {name!r} of a plugin is a {type(runtime).__name__}, which lacks `name`, "
            "`has_threads` or `open`. Correct the plugin, or unregister it."
        )
    return runtime
