"""Exports a simulation to an INT8 ONNX file: `export_onnx`."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.onnx.export_arguments import DEFAULT_OPSET, check_choices, check_target
from eq_aimet.aimet.onnx.flat_call import flatten_call
from eq_aimet.aimet.onnx.writing import FileNames, write_encodings, write_quantized
from eq_aimet.aimet.simulation.bias_scales import raise_weight_scales
from eq_aimet.aimet.simulation.dummy_input import checked_input
from eq_aimet.aimet.simulation.export_readiness import check_encodings, check_symmetric, check_tied
from eq_aimet.aimet.simulation.fingerprint import fingerprint
from eq_aimet.aimet.simulation.unchanged import copied_model, copied_simulation
from eq_aimet.deploy.onnx.arrangement import arrange
from eq_aimet.deploy.onnx.block_storage import store_blocks
from eq_aimet.deploy.onnx.export_report import OnnxReport
from eq_aimet.deploy.onnx.graph import Graph
from eq_aimet.deploy.onnx.layer_orbits import TiedLayer, block_vectors, layer_orbits, untied_bias
from eq_aimet.deploy.onnx.marked_files import mark
from eq_aimet.deploy.onnx.orbit_storage import store_orbits
from eq_aimet.deploy.onnx.quantized_bias import align_biases
from eq_aimet.deploy.onnx.saturation import wide_weights
from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntime
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.files import whole_files
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.calling import tensors_in

__all__ = ["export_onnx"]

logger = logging.getLogger(__name__)


def export_onnx(
    sim: QuantizationSimModel,
    dummy_input: Any,
    path: str | os.PathLike[str],
    *,
    storage: str = "orbits",
    arranged: bool = True,
    float_model: bool = False,
    opset_version: int = DEFAULT_OPSET,
) -> OnnxReport:
    """Write `sim` as an INT8 ONNX file, with AIMET's encodings file beside it, and return a report.

    AIMET's own exporter writes the file, with quantized weights. Then the function gives each bias the scale
    of its layer's sums, rewrites operators so that onnxruntime's integer kernels compute them, and stores one
    representative of each orbit of weights. All steps work on a copy in float32, so `sim` never changes. If
    the function succeeds, all files are new. After an error or Ctrl-C, all files are as they were before.

    A bias may not fit into int32 if all weights of its channel are zero. The file then gets a larger scale
    for these weights than the simulation has, and the report names the weight. `make_portable` raises the
    scale in the simulation.

    Args:
        sim: AIMET's simulation in float32 or float64, encodings computed and tied. After `make_portable` the
            file does not depend on kernels that saturate.
        dummy_input: A batch in the shapes that the device will use: a tensor, a tuple of tensors, or a
            dictionary of tensors by name. The file takes tensors of these shapes, and returns the tensors of
            the model's output one by one.
        path: The file to write. Its name ends in `.onnx`. The encodings go to the same name ending in
            `.encodings`.
        storage: "orbits" for representatives that standard operators expand when the file is opened,
            "plain" for whole weights as AIMET writes them.
        arranged: Whether to rewrite operators for onnxruntime, see `eq_aimet.deploy.onnx.arrangement`.
        float_model: Whether to write the FP32 network as well, to the same name ending in `.float.onnx`. The
            encodings name the tensors of this network; Qualcomm's converters take both files.
        opset_version: The version of ONNX's operators, at least 13.

    Raises:
        InvalidArgumentError: If an argument is not as described; if encodings are missing or not tied, or a
            weight is not symmetric; if AIMET can't export the model.
        DataError: If a file can't be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import export_onnx
        >>> model, x = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)).eval(), torch.rand(1, 1, 5, 5)
        >>> sim = QuantizationSimModel(model, dummy_input=x)
        >>> sim.compute_encodings(lambda model: model(x))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = export_onnx(sim, x, f"{folder}/model.onnx")
        >>> report.storage, report.wide_weights
        ('orbits', ('0.weight',))
    """
    check_encodings(sim)
    target = check_target(path)
    check_choices(storage, arranged, float_model, opset_version)
    check_tied(sim)
    check_symmetric(sim)
    twin = copied_simulation(sim)
    origin = fingerprint(twin)
    inputs = checked_input(twin.model, dummy_input)
    raised = raise_weight_scales(twin.model, copied_model(twin), inputs)
    arguments = tuple(tensors_in(inputs))
    names = FileNames(*flatten_call(twin.model, inputs), opset_version)

    targets = [target, target.with_suffix(".encodings")]
    if float_model:
        targets.append(target.with_suffix(".float.onnx"))
    with whole_files(targets) as (file, *beside):
        write_quantized(twin, arguments, file, names)
        report = _finish(sim, file, storage, arranged, origin)
        write_encodings(twin, arguments, beside, names)
    report = replace(
        report,
        path=str(target),
        encodings=str(targets[1]),
        float_model=str(targets[2]) if float_model else "",
        raised_weights=tuple(dict.fromkeys([*(entry.name for entry in raised), *report.raised_weights])),
    )
    logger.info("Exported:\n%s", report)
    return report


def _finish(sim: QuantizationSimModel, file: Path, storage: str, arranged: bool, origin: str) -> OnnxReport:
    """Rewrite the file that AIMET wrote, in place, and return the report on it."""
    graph = Graph(onnx.load(file))
    aligned, raised = align_biases(graph)
    wide = wide_weights(graph)
    layers = _tied_layers(sim)
    _check_biases(graph, layers)
    rewritten = arrange(graph) if arranged else ()
    stored = store_orbits(graph, [layer_orbits(layer) for layer in layers]) if storage == "orbits" else ()
    if storage == "orbits":
        store_blocks(graph, block_vectors(layers))
        graph.share_constants()
        graph.shorten_names()
    model = graph.finish()
    mark(model, storage=storage, portable=str(not wide).lower(), simulation=origin)
    onnx.save(model, file)
    runtime = OnnxRuntime()
    try:
        operators, unopened = runtime.operators(file), ""
    except InvalidArgumentError as error:  # the file may be meant for another runtime
        operators, unopened = (), str(error.received)
    return OnnxReport(
        path="",
        encodings="",
        float_model="",
        storage=storage,
        file_bytes=file.stat().st_size,
        weights=stored,
        rewritten=rewritten,
        aligned_biases=aligned,
        wide_weights=wide,
        raised_weights=raised,
        runtime=runtime.name,
        operators=operators,
        unopened=unopened,
    )


def _tied_layers(sim: QuantizationSimModel) -> list[TiedLayer]:
    """Return the layers whose weights the exact elements tie."""
    found = []
    for name, module in sim.model.named_modules():
        blocks, weight = layer_blocks(module), getattr(module, "weight", None)
        if blocks is not None and blocks.actions and isinstance(weight, torch.Tensor) and weight.dim() >= 2:
            found.append(TiedLayer(name, module, blocks))
    return found


def _check_biases(graph: Graph, layers: list[TiedLayer]) -> None:
    untied = untied_bias(graph, layers)
    if untied is not None:
        raise InvalidArgumentError(
            "sim",
            received=f"a bias of `{untied[0]}` that is not symmetric: its integers are up to {untied[1]} "
            "apart",
            expected="equal biases within each orbit",
            remedy="Call `symmetrize(model)` before the simulation is built.",
        )
