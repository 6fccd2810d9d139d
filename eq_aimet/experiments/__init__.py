"""What the recipes do with a network: build, train, quantize, deploy, measure. Needs the `recipes` extra.

The names load what they need at first use: AIMET and Lightning take ten seconds to import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eq_aimet.experiments.datasets import count_images, open_data
    from eq_aimet.experiments.deployment import deploy
    from eq_aimet.experiments.experiment import NetworkFindings, quantize_and_measure
    from eq_aimet.experiments.networks import CLASS_NAMES, build_network, check_network
    from eq_aimet.experiments.quantization import EQUALIZATIONS, equalize, simulate
    from eq_aimet.experiments.trained import count_parameters, train_network

_HOME = {
    "CLASS_NAMES": "networks",
    "build_network": "networks",
    "check_network": "networks",
    "count_images": "datasets",
    "open_data": "datasets",
    "count_parameters": "trained",
    "train_network": "trained",
    "EQUALIZATIONS": "quantization",
    "equalize": "quantization",
    "simulate": "quantization",
    "deploy": "deployment",
    "NetworkFindings": "experiment",
    "quantize_and_measure": "experiment",
}

__all__ = [
    "CLASS_NAMES",
    "build_network",
    "check_network",
    "count_images",
    "open_data",
    "count_parameters",
    "train_network",
    "EQUALIZATIONS",
    "equalize",
    "simulate",
    "deploy",
    "NetworkFindings",
    "quantize_and_measure",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
