"""onnxruntime on the CPU."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime

from eq_aimet.deploy.runtimes.runtime import OperatorCount, unfit_file
from eq_aimet.errors import InvalidArgumentError

__all__ = ["PRECISE_OPTION", "OnnxRuntime", "OnnxRuntimeFile", "open_session", "operators_run"]

MINIMUM_VERSION = (1, 17)
PRECISE_OPTION = "session.x64quantprecision"

# Operators that add up floats, so that their result depends on the order. A QLinear operator of this list
# takes and returns integers, but adds up floats inside.
_SUMMING = frozenset({
    "Attention", "AveragePool", "Conv", "ConvTranspose", "CumSum", "Einsum", "FusedConv", "FusedGemm",
    "FusedMatMul", "GRU", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GridSample", "GroupNorm",
    "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LogSoftmax", "LpNormalization", "LpPool",
    "MatMul", "MeanVarianceNormalization", "NhwcFusedConv", "QLinearAveragePool", "QLinearReduceMean",
    "QLinearSoftmax", "RNN", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean",
    "ReduceSum", "ReduceSumSquare", "Resize", "SimplifiedLayerNormalization", "SkipLayerNormalization",
    "Softmax", "Upsample",
})  # fmt: skip
_FLOAT_INSIDE = frozenset({"QLinearAveragePool", "QLinearReduceMean", "QLinearSoftmax"})
_TO_INTEGER = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
_CROSSING = _TO_INTEGER | {"DequantizeLinear", "Cast"}
_RANK = {"integer": 0, "float": 1, "crossing": 2}
_INTEGER_TYPES = (
    onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT16, onnx.TensorProto.UINT16,
    onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL,
)  # fmt: skip


class OnnxRuntime:
    """onnxruntime with its default session options, on the CPU.

    Args:
        is_precise: Whether to set `session.x64quantprecision`, which avoids the kernels that saturate.
    """

    has_threads = True

    def __init__(self, *, is_precise: bool = False) -> None:
        self._is_precise = is_precise

    @property
    def name(self) -> str:
        """The name and version."""
        return _name()

    def open(self, path: Path, *, threads: int = 1) -> OnnxRuntimeFile:
        """Open a file.

        Raises:
            InvalidArgumentError: If onnxruntime is too old or can't open the file.
        """
        check_version(path)
        return OnnxRuntimeFile(open_session(path, threads=threads, is_precise=self._is_precise))

    def operators(self, path: Path) -> tuple[OperatorCount, ...]:
        """Return the operators of the graph that onnxruntime makes of a file, integer operators first."""
        return operators_run(path)


class OnnxRuntimeFile:
    """A file that onnxruntime has opened.

    Args:
        session: The session with the file.

    Attributes:
        fell_back: Always empty: the processor is the device.
    """

    fell_back: tuple[str, ...] = ()

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._names = [entry.name for entry in session.get_inputs()]

    def run(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return all outputs for one batch.

        Raises:
            InvalidArgumentError: If onnxruntime fails while it runs the file.
        """
        feeds = {name: np.ascontiguousarray(array) for name, array in zip(self._names, batch, strict=True)}
        try:
            return cast("list[np.ndarray]", self._session.run(None, feeds))
        except Exception as error:
            raise unfit_file(_name(), "run", error) from error


def open_session(
    source: str | os.PathLike[str] | bytes,
    *,
    threads: int = 1,
    is_precise: bool = False,
    optimized: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Return a session on the CPU, with default options except the options in the arguments.

    Args:
        source: A file, or a model as bytes.
        threads: The number of threads within an operator.
        is_precise: Whether to set `session.x64quantprecision`, which avoids the kernels that saturate.
        optimized: The file into which onnxruntime writes its own graph of the model.

    Raises:
        InvalidArgumentError: If onnxruntime can't open the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # onnxruntime raises errors as exceptions, too
    if is_precise:
        options.add_session_config_entry(PRECISE_OPTION, "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    model = source if isinstance(source, bytes) else os.fspath(source)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise unfit_file(_name(), "open", error) from error


def operators_run(path: str | os.PathLike[str]) -> tuple[OperatorCount, ...]:
    """Return the operators of the graph that onnxruntime makes of a file, integer operators first."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_session(path, optimized=optimized)
        graph = onnx.load(optimized).graph
    # onnxruntime's own operators have no shape inference, so this loop itself tracks the integer values.
    integers = {tensor.name for tensor in graph.initializer if tensor.data_type in _INTEGER_TYPES}
    counts: Counter[tuple[str, str, bool]] = Counter()
    for node in graph.node:
        arithmetic = _arithmetic(node, integers)
        is_integer = arithmetic == "integer" and not _dequantizes(node)
        if is_integer or node.op_type in _TO_INTEGER or node.op_type.startswith("QLinear"):
            integers.update(node.output)
        counts[node.op_type, arithmetic, arithmetic == "float" and _adds_up(node)] += 1
    ranked = sorted(counts.items(), key=lambda item: (_RANK[item[0][1]], -item[1], item[0]))
    return tuple(OperatorCount(name, kind, count, adds_up) for (name, kind, adds_up), count in ranked)


def check_version(path: Path) -> None:
    """Check that onnxruntime is not too old for the files that `export_onnx` writes.

    Raises:
        InvalidArgumentError: If it is too old.
    """
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version < MINIMUM_VERSION:
        raise InvalidArgumentError(
            "path",
            received=f"`{path}` for {_name()}",
            expected=f"onnxruntime {'.'.join(map(str, MINIMUM_VERSION))} or newer",
            remedy="Upgrade it: pip install -U onnxruntime",
        )


def _arithmetic(node: onnx.NodeProto, integers: set[str]) -> str:
    if node.op_type in _CROSSING:
        return "crossing"
    if node.op_type in _FLOAT_INSIDE:
        return "float"
    is_integer = node.op_type.startswith(("QLinear", "QGemm")) or (node.input and node.input[0] in integers)
    return "integer" if is_integer else "float"


def _dequantizes(node: onnx.NodeProto) -> bool:
    """Return whether an integer operator returns floats, as a QGemm does if it has no output scale."""
    return node.op_type == "QGemm" and not (len(node.input) > 7 and node.input[7])


def _adds_up(node: onnx.NodeProto) -> bool:
    if node.op_type in ("Resize", "Upsample"):  # the nearest neighbour is a copy
        modes = [entry.s for entry in node.attribute if entry.name == "mode"]
        return bool(modes) and modes[0] != b"nearest"
    return node.op_type in _SUMMING


def _name() -> str:
    return f"onnxruntime {onnxruntime.__version__}"
