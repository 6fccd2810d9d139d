"""An INT8 ONNX file out of a simulation: `export_onnx`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aimet_torch.onnx
import numpy as np
import onnx
import torch
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.simulation.export_readiness import (
    check_encodings,
    check_symmetric,
    check_tied,
    checked_input,
)
from eq_aimet.deploy.onnx.arrangement import Rewriting, arrange
from eq_aimet.deploy.onnx.block_storage import store_blocks
from eq_aimet.deploy.onnx.export_report import OnnxReport
from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.onnx.orbit_storage import LayerOrbits, StoredWeight, store_orbits
from eq_aimet.deploy.onnx.quantized_bias import align_biases
from eq_aimet.deploy.onnx.session import MINIMUM_OPSET, stamp
from eq_aimet.deploy.onnx.target_path import check_target
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.files import whole_files
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.layers import is_transposed
from eq_aimet.symmetry.orbits import bias_orbits, weight_orbits

__all__ = ["export_float_onnx", "export_onnx"]

logger = logging.getLogger(__name__)

STORAGES = ("orbits", "plain")
_OPSET = 17
_LIMITS = (-64, 63)


def export_onnx(
    sim: QuantizationSimModel,
    dummy_input: torch.Tensor,
    path: str | os.PathLike[str],
    *,
    storage: str = "orbits",
    arranged: bool = True,
    float_model: bool = False,
    opset_version: int = _OPSET,
) -> OnnxReport:
    """Write `sim` as an INT8 ONNX file, with AIMET's encodings file beside it, and return a report.

    AIMET's own exporter writes the file, with quantized weights. Then the biases are brought to the scale of
    their layers' sums, operators are arranged so that onnxruntime's integer kernels compute them, and one
    representative of each orbit of weights is stored. `sim` stays as it is. The files appear whole or not at
    all.

    Args:
        sim: AIMET's simulation, encodings computed and tied; after `make_portable` the file is exact on
            runtimes whose kernels saturate too.
        dummy_input: A batch as the device will take it; its shape is the file's.
        path: The file to write, ending in `.onnx`. The encodings go to the same name ending in `.encodings`.
        storage: "orbits" for representatives that standard operators expand when the file is opened,
            "plain" for whole weights as AIMET writes them.
        arranged: Whether to rewrite operators for onnxruntime, see `eq_aimet.deploy.onnx.arrangement`.
        float_model: Whether to write the FP32 network, too, to the same name ending in `.float.onnx`: the one
            that the encodings belong to, for Qualcomm's converters.
        opset_version: The version of ONNX's operators, from 13 on.

    Raises:
        InvalidArgumentError: If an argument is not as described; if encodings are missing or not tied, or a
            weight is not symmetric.
        DataError: If the file can't be written.

    Example:
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import export_onnx
        >>> model, x = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), torch.rand(1, 1, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=x)        # doctest: +SKIP
        >>> sim.compute_encodings(lambda model: model(x))           # doctest: +SKIP
        >>> export_onnx(sim, x, "model.onnx").storage               # doctest: +SKIP
        'orbits'
    """
    target = check_target(path)
    _check_choice(storage, opset_version)
    check_encodings(sim)
    check_tied(sim)
    check_symmetric(sim)
    arguments = checked_input(sim.model, dummy_input)
    options = _options(len(arguments), opset_version)
    targets = [target, target.with_suffix(".encodings")]
    if float_model:
        targets.append(target.with_suffix(".float.onnx"))
    with whole_files(targets) as (file, *beside):
        with _quiet():
            aimet_torch.onnx.export(sim, arguments, str(file), prequantize_constants=True, **options)
        report = _finish(sim, file, storage, arranged)
        _write_encodings(sim, arguments, beside, options)
    report = replace(
        report,
        path=str(target),
        encodings=str(target.with_suffix(".encodings")),
        float_model=str(target.with_suffix(".float.onnx")) if float_model else "",
    )
    logger.info("Exported:\n%s", report)
    return report


def export_float_onnx(model: torch.nn.Module, arguments: tuple[Any, ...], file: Path) -> None:
    """Write a plain model in FP32, as torch does it, with the names and opset of `export_onnx`."""
    with _quiet():
        torch.onnx.export(model, arguments, str(file), **_options(len(arguments), _OPSET))


def _finish(sim: QuantizationSimModel, file: Path, storage: str, arranged: bool) -> OnnxReport:
    graph = Graph(onnx.load(file))
    aligned = align_biases(graph)
    wide = _wide_weights(graph)
    layers = _layers(sim)
    _check_biases(graph, layers)
    rewritten: tuple[Rewriting, ...] = arrange(graph) if arranged else ()
    stored: tuple[StoredWeight, ...] = ()
    if storage == "orbits":
        stored = store_orbits(graph, [_orbits(name, layer, blocks) for name, layer, blocks in layers])
        store_blocks(graph, _block_vectors(layers))
        graph.share_constants()
        graph.shorten_names()
    model = graph.finish()
    stamp(model, storage=storage, portable=str(not wide).lower())
    onnx.save(model, file)
    return OnnxReport("", "", "", storage, file.stat().st_size, stored, rewritten, aligned, wide)


def _write_encodings(
    sim: QuantizationSimModel, arguments: tuple[Any, ...], files: list[Path], options: dict[str, Any]
) -> None:
    """Write AIMET's encodings to the first file, and the FP32 network to the second if there is one."""
    scratch = files[0].parent / "float"
    scratch.mkdir()
    written = scratch / "model.onnx"
    with _quiet():
        sim.onnx.export(arguments, str(written), **options)
    for source, file in zip((written.with_suffix(".encodings"), written), files, strict=False):
        source.rename(file)


def _layers(sim: QuantizationSimModel) -> list[tuple[str, torch.nn.Module, LayerBlocks]]:
    """Return the layers whose weights the exact elements tie."""
    found = []
    for name, module in sim.model.named_modules():
        blocks, weight = layer_blocks(module), getattr(module, "weight", None)
        if blocks is not None and blocks.actions and isinstance(weight, torch.Tensor) and weight.dim() >= 2:
            found.append((name, module, blocks))
    return found


def _orbits(name: str, layer: Any, blocks: LayerBlocks) -> LayerOrbits:
    first, second = blocks.blocks_out, blocks.blocks_in
    if is_transposed(layer):
        first, second = second, first
    columns = layer.weight.shape[1]
    if getattr(layer, "groups", 1) > 1:
        # all groups are alike: the blocks of one of them, or the whole group where it is less than a block
        uniform = len(set(second)) == 1 and columns % second[0] == 0
        second = (second[0],) * (columns // second[0]) if uniform else (columns,)
    orbits = weight_orbits(layer, blocks).cpu().numpy()
    return LayerOrbits(name, f"{name}.weight_q", orbits, first, second)


def _block_vectors(layers: list[tuple[str, torch.nn.Module, LayerBlocks]]) -> list[tuple[str, int]]:
    """Return the names of the biases and scales with one number per channel, and the size of their blocks."""
    return [
        (f"{name}.{vector}", blocks.blocks_out[0])
        for name, _, blocks in layers
        if len(set(blocks.blocks_out)) == 1 and blocks.blocks_out[0] > 1
        for vector in ("bias_q", "weight_scale", "bias_scale")
    ]


def _check_biases(graph: Graph, layers: list[tuple[str, torch.nn.Module, LayerBlocks]]) -> None:
    for name, _, blocks in layers:
        bias = graph.constants.get(f"{name}.bias_q")
        orbits = bias_orbits(blocks).numpy()
        if bias is None or bias.shape != orbits.shape:
            continue
        first = np.unique(orbits, return_index=True)[1]
        apart = int(np.abs(bias.astype(np.int64) - bias[first][orbits].astype(np.int64)).max())
        if apart:
            raise InvalidArgumentError(
                "sim",
                received=f"a bias of `{name}` that is not symmetric: its integers are up to {apart} apart",
                expected="equal biases within each orbit",
                remedy="Call `symmetrize(model)` before the simulation is built.",
            )


def _wide_weights(graph: Graph) -> tuple[str, ...]:
    """Return the names of the 8-bit weights that kernels without VNNI saturate on."""
    wide = []
    producers = graph.producers()
    for node in graph.nodes:
        load = producers.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or load is None:
            continue
        weight = graph.constants.get(load.input[0])
        if weight is None or weight.dtype != np.int8:
            continue
        if weight.min() < _LIMITS[0] or weight.max() > _LIMITS[1]:
            wide.append(load.input[0].removesuffix("_q"))
    return tuple(wide)


def _check_choice(storage: str, opset_version: int) -> None:
    if storage not in STORAGES:
        raise InvalidArgumentError(
            "storage",
            received=repr(storage),
            expected=" or ".join(f'"{name}"' for name in STORAGES),
            remedy='Take "orbits" for small files.',
        )
    if opset_version < MINIMUM_OPSET:
        raise InvalidArgumentError(
            "opset_version",
            received=opset_version,
            expected=f"{MINIMUM_OPSET} or more, the first with one scale per channel",
            remedy=f"Leave it out: {_OPSET} is understood by onnxruntime since 1.12.",
        )


def _options(inputs: int, opset_version: int) -> dict[str, Any]:
    names = ["input"] if inputs == 1 else [f"input_{position}" for position in range(inputs)]
    # The exporter on torch.jit keeps the layers' names for their weights, by which orbits find them.
    return {"input_names": names, "output_names": ["output"], "dynamo": False, "opset_version": opset_version}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' deprecation and tracing warnings, which are about their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
