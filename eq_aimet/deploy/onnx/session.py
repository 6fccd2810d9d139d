"""Opening ONNX files: what is ours, what the runtime can run, and which operators it made of it."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from eq_aimet.errors import InvalidArgumentError

__all__ = [
    "MINIMUM_OPSET",
    "OperatorCount",
    "load_ours",
    "open_session",
    "operators_run",
    "run_session",
    "stamp",
    "stamped",
]

MINIMUM_OPSET = 13  # the first with one scale per channel
MINIMUM_RUNTIME = (1, 17)
_MARK = "eq_aimet."
PRECISE_OPTION = "session.x64quantprecision"

# Operators that add up floats, so that their result depends on the order; the last one inside.
_SUMMING = frozenset({
    "AveragePool", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "Einsum",
    "GlobalAveragePool", "InstanceNormalization", "LayerNormalization", "MatMul", "ReduceL1", "ReduceL2",
    "ReduceMean", "ReduceSum", "QLinearAveragePool",
})  # fmt: skip
_TO_INTEGER = frozenset(["QuantizeLinear", "DynamicQuantizeLinear"])
_CROSSING = _TO_INTEGER | {"DequantizeLinear", "Cast"}


@dataclass(frozen=True)
class OperatorCount:
    """How often the optimized graph runs an operator, and in what arithmetic.

    Attributes:
        name: The operator's type.
        arithmetic: "integer", "float", or "crossing" for those that lead from one to the other.
        count: How many there are.
        depends_on_order: Whether it adds up floats, so that a turned image may change its last bits.
    """

    name: str
    arithmetic: str
    count: int
    depends_on_order: bool


def stamp(model: onnx.ModelProto, **facts: str) -> None:
    """Write facts about the file into its metadata, in place."""
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"{_MARK}{key}", value


def stamped(model: onnx.ModelProto) -> dict[str, str]:
    """Return what `stamp` wrote, empty for a file of someone else's."""
    return {
        entry.key.removeprefix(_MARK): entry.value
        for entry in model.metadata_props
        if entry.key.startswith(_MARK)
    }


def load_ours(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return the model in a file that `export_onnx` wrote.

    Raises:
        InvalidArgumentError: If there is no such file, it is no ONNX, or not written by `export_onnx`.
    """
    file = Path(path)
    received = ""
    if file.is_dir():
        received = f"`{file}`, a folder"
    elif not file.is_file():
        received = f"`{file}`, which does not exist"
    else:
        try:
            model = onnx.load(file)
            if not stamped(model):
                received = f"`{file}`, an ONNX file that `export_onnx` did not write"
        except (DecodeError, ValueError, OSError) as error:
            received = f"`{file}`, which is no ONNX file ({error})"
    if received:
        raise InvalidArgumentError(
            "path",
            received=received,
            expected="a file that `export_onnx` wrote",
            remedy="Export the sim again: `export_onnx(sim, dummy_input, path)`.",
        )
    _check_versions(file, model)
    return model


def _check_versions(file: Path, model: onnx.ModelProto) -> None:
    opset = max((entry.version for entry in model.opset_import if not entry.domain), default=0)
    if opset < MINIMUM_OPSET:
        raise InvalidArgumentError(
            "path",
            received=f"`{file}` of opset {opset}",
            expected=f"opset {MINIMUM_OPSET} or newer",
            remedy="Export the sim again; `export_onnx` writes a newer one.",
        )
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < MINIMUM_RUNTIME:
        raise InvalidArgumentError(
            "path",
            received=f"`{file}` for onnxruntime {onnxruntime.__version__}",
            expected=f"onnxruntime {'.'.join(map(str, MINIMUM_RUNTIME))} or newer",
            remedy="Upgrade it: pip install -U onnxruntime",
        )


def open_session(
    source: str | os.PathLike[str] | bytes,
    *,
    threads: int = 1,
    is_precise: bool = False,
    optimized: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU with default options but for those given.

    Args:
        source: A file, or a model as bytes.
        threads: The threads within an operator.
        is_precise: Whether to set `session.x64quantprecision`, which avoids kernels that saturate.
        optimized: Where to write the graph that the runtime made of the model.

    Raises:
        InvalidArgumentError: If the runtime can't open it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if is_precise:
        options.add_session_config_entry(PRECISE_OPTION, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    model = source if isinstance(source, bytes) else os.fspath(source)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InvalidArgumentError(
            "path",
            received=f"a model that onnxruntime {onnxruntime.__version__} can't open ({error})",
            expected="one that it knows all operators and types of",
            remedy="Upgrade onnxruntime, or export the sim again with the version that is installed.",
        ) from error


def run_session(session: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Return the first output for all images, run in batches of the size that the model was exported for.

    The last batch is filled up with copies of its first image.
    """
    model_input = session.get_inputs()[0]
    size = model_input.shape[0] if isinstance(model_input.shape[0], int) else len(images)
    outputs = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        missing = size - len(batch)
        filled = np.concatenate([batch, *[batch[:1]] * missing]) if missing else batch
        result = session.run(None, {model_input.name: np.ascontiguousarray(filled)})[0]
        outputs.append(result[: len(batch)])
    return np.concatenate(outputs)


def operators_run(path: str | os.PathLike[str]) -> tuple[OperatorCount, ...]:
    """Return the operators of the graph that onnxruntime makes of a file, integer ones first."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, optimized=optimized)
        graph = onnx.load(optimized).graph
    # The runtime's own operators have no shape inference: follow which values are integers by hand.
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type != onnx.TensorProto.FLOAT}
    counts: Counter[tuple[str, str]] = Counter()
    for node in graph.node:
        if node.op_type in _CROSSING:
            arithmetic = "crossing"
        elif node.op_type == "QLinearAveragePool":
            arithmetic = "float"
        elif node.op_type.startswith(("QLinear", "QGemm")) or (node.input and node.input[0] in integers):
            arithmetic = "integer"
        else:
            arithmetic = "float"
        if arithmetic == "integer" or node.op_type in _TO_INTEGER or node.op_type.startswith("QLinear"):
            integers.update(node.output)
        counts[node.op_type, arithmetic] += 1
    ranked = sorted(counts.items(), key=lambda item: (_RANK[item[0][1]], -item[1], item[0][0]))
    return tuple(
        OperatorCount(name, arithmetic, count, arithmetic == "float" and name in _SUMMING)
        for (name, arithmetic), count in ranked
    )


_RANK = {"integer": 0, "float": 1, "crossing": 2}
