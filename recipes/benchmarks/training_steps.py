"""The measurements of a training step; each function returns plain numbers per network.

One process trains all networks of a time measurement in turns, so that other load on the machine affects all
networks alike. For memory, each network runs in its own process.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

__all__ = ["Setting", "Times", "measure_memory", "measure_profile", "measure_times", "network_names"]

CONVENTIONAL = "conventional"
MINIMAL_ROUNDS = 5


@dataclass(frozen=True)
class Setting:
    """The size of the networks, the device and the number of rounds.

    A variant is one of eager, bf16, channels-last and compiled, or several of them with "+" between them. A
    measurement ends at the first new round after `limit` seconds, but it runs at least five rounds.
    """

    width: float
    crop: int
    batch: int
    threads: int
    rounds: int
    groups: tuple[int, ...]
    device: str = "cpu"
    variants: tuple[str, ...] = ("eager",)
    limit: float = 120.0


@dataclass(frozen=True)
class Times:
    """The median and the fastest seconds of a step, and their ratios to the conventional network's."""

    median: float
    fastest: float
    median_ratio: float
    fastest_ratio: float


def network_names(groups: tuple[int, ...]) -> list[str]:
    """Return the networks' names, each group's conventional counterpart first."""
    kinds = (CONVENTIONAL, "channel", "field")
    return [f"C{group} {kind}" for group in groups for kind in kinds]


def measure_times(setting: Setting) -> dict[str, dict[str, Times]]:
    """Return the times by variant and network; ratios refer to the conventional network of that variant."""
    torch.set_num_threads(setting.threads)
    names = network_names(setting.groups)
    steps = {
        (variant, name): training_step(name, setting, variant)
        for variant in setting.variants
        for name in names
    }
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    # On one CPU thread, processor time excludes the time that other programs take.
    alone = setting.device == "cpu" and setting.threads == 1
    clock = time.process_time if alone else time.perf_counter
    for step in steps.values():
        step()
        step()
    begin = time.perf_counter()
    for count in range(setting.rounds):
        if count >= MINIMAL_ROUNDS and time.perf_counter() - begin > setting.limit:
            break
        for key, step in steps.items():
            started = clock()
            step()
            seconds[key].append(clock() - started)
    return {
        variant: {
            name: _compare(seconds[variant, name], seconds[variant, _counterpart(name)]) for name in names
        }
        for variant in setting.variants
    }


def measure_memory(setting: Setting, name: str) -> dict[str, float]:
    """Return the MiB that three steps add to the process' peak memory, and the GPU's peak allocation."""
    torch.set_num_threads(setting.threads)
    step = training_step(name, setting, setting.variants[0])
    before = _peak_mib()
    for _ in range(3):
        step()
    on_gpu = torch.cuda.max_memory_allocated() / (1 << 20) if setting.device == "cuda" else 0.0
    return {"resident": _peak_mib() - before, "cuda": on_gpu}


def measure_profile(setting: Setting, name: str) -> dict[str, float]:
    """Return the milliseconds of a step by kind of operation, and separately of the filters' expansion.

    For each kind, the value comes from the step with the least time for this kind, because the profiler's
    clock also counts the time of other programs.
    """
    from torch.profiler import ProfilerActivity, profile

    torch.set_num_threads(setting.threads)
    network = build_network(name, setting)
    step = _step_of(network, setting, "eager")
    step()
    step()
    fastest = dict.fromkeys(("convolution", "batch norm", "rest"), math.inf)
    for _ in range(setting.rounds):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            step()
        found = dict.fromkeys(fastest, 0.0)
        for event in profiled.key_averages():
            kind = next((kind for kind in found if kind.replace(" ", "_") in event.key), "rest")
            found[kind] += event.self_cpu_time_total / 1e3
        fastest = {kind: min(fastest[kind], found[kind]) for kind in found}
    forward, both = _expansion(network, setting.rounds)
    return {**fastest, "expansion forward": forward, "expansion": both}


def build_network(name: str, setting: Setting) -> torch.nn.Module:
    """Return the network with the given name, in training mode on the setting's device."""
    from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2

    group, kind = int(name.split()[0][1:]), name.split()[1]
    torch.manual_seed(0)
    sizes = {"width": setting.width, "input_size": setting.crop}
    if kind == CONVENTIONAL:
        return MobileNetV2(divisor=group, **sizes).to(setting.device)
    return EquivariantMobileNetV2(group=group, depthwise=kind, **sizes).to(setting.device)


def training_step(name: str, setting: Setting, variant: str) -> Callable[[], None]:
    """Return a function that runs one step: forward, backward, optimizer."""
    return _step_of(build_network(name, setting), setting, variant)


def _step_of(network: torch.nn.Module, setting: Setting, variant: str) -> Callable[[], None]:
    parts = variant.split("+")
    images = torch.rand(setting.batch, 3, setting.crop, setting.crop, device=setting.device)
    labels = torch.randint(2, (setting.batch,), device=setting.device)
    if "channels-last" in parts:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    run = torch.compile(network) if "compiled" in parts else network

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device, torch.bfloat16, enabled="bf16" in parts):
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()
        if setting.device == "cuda":
            torch.cuda.synchronize()

    return step


def _counterpart(name: str) -> str:
    return f"{name.split()[0]} {CONVENTIONAL}"


def _compare(seconds: list[float], reference: list[float]) -> Times:
    ratios = [ours / theirs for ours, theirs in zip(seconds, reference, strict=True)]
    fastest = min(seconds)
    return Times(median(seconds), fastest, median(ratios), fastest / min(reference))


def _expansion(network: torch.nn.Module, rounds: int) -> tuple[float, float]:
    """Return the least milliseconds to expand all filters: forward alone, and forward and backward."""
    convolutions = [module for module in network.modules() if hasattr(module, "expand_parameters")]
    if not convolutions:
        return 0.0, 0.0
    weights = [module.weights for module in convolutions]
    forward, both = [], []
    for _ in range(rounds):
        started = time.process_time()
        filters = [module.expand_parameters()[0] for module in convolutions]
        forward.append(time.process_time() - started)
        gradients = [torch.ones_like(expanded) for expanded in filters]
        resumed = time.process_time()
        torch.autograd.grad(filters, weights, gradients)
        both.append(forward[-1] + time.process_time() - resumed)
    return 1e3 * min(forward), 1e3 * min(both)


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)  # macOS counts bytes, Linux KiB
