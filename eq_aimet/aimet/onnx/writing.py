"""Calls of AIMET's and torch's exporters, on copies that they may change."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aimet_torch.onnx
import torch
from aimet_torch.quantsim import QuantizationSimModel, QuantizationSimModelOnnxExporter

from eq_aimet.aimet.onnx.flat_call import value_names
from eq_aimet.errors import EqAimetError, InvalidArgumentError

__all__ = ["FileNames", "write_encodings", "write_float", "write_quantized"]

# Warnings of the exporters about their own code: the start of each text, its category, and the module that
# the warning names. A warning about the model itself reaches the caller.
_WARNINGS: tuple[tuple[str, type[Warning], str], ...] = (
    # AIMET branches on its own encodings while torch.jit traces it.
    ("Converting a tensor to a Python boolean", torch.jit.TracerWarning, r"aimet_torch\."),
    (r".*QuantizerBase\._allow_overwrite is deprecated", DeprecationWarning, r"aimet_torch\."),
    # We take torch's exporter on torch.jit on purpose; see `FileNames.options`.
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning, ""),
    # torch's exporter leaves a slice in the file that it could have computed.
    ("Constant folding - ", UserWarning, ""),
    ("The feature will be removed", DeprecationWarning, r"torch\.onnx\."),
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning, ""),
    (r"`torch\.jit\.\w+` is deprecated", FutureWarning, ""),
)


@dataclass(frozen=True)
class FileNames:
    """The inputs and outputs of a file, and the version of its operators.

    Attributes:
        inputs: The places of the tensors in the model's inputs.
        outputs: The places of the tensors in the model's outputs.
        opset_version: The version of ONNX's operators.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    opset_version: int

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of torch's exporter."""
        return {
            "input_names": value_names("input", self.inputs),
            "output_names": value_names("output", self.outputs),
            # The exporter on torch.jit names weights after their layers; orbit storage finds weights by name.
            "dynamo": False,
            "opset_version": self.opset_version,
        }


def write_quantized(
    sim: QuantizationSimModel, arguments: tuple[torch.Tensor, ...], file: Path, names: FileNames
) -> None:
    """Write the INT8 network as AIMET does.

    Raises:
        InvalidArgumentError: If AIMET's exporter fails.
    """
    with _exporting():
        aimet_torch.onnx.export(sim, arguments, str(file), prequantize_constants=True, **names.options)


def write_encodings(
    sim: QuantizationSimModel, arguments: tuple[torch.Tensor, ...], files: Sequence[Path], names: FileNames
) -> None:
    """Write AIMET's encodings to the first file, and the FP32 network to the second if there is one.

    Raises:
        InvalidArgumentError: If AIMET's exporter fails.
    """
    scratch = files[0].parent / "float"
    scratch.mkdir()
    written = scratch / "model.onnx"
    with _exporting():
        QuantizationSimModelOnnxExporter(sim).export(arguments, str(written), **names.options)
    for source, file in zip((written.with_suffix(".encodings"), written), files, strict=False):
        source.rename(file)


def write_float(
    model: torch.nn.Module, arguments: tuple[torch.Tensor, ...], file: Path, names: FileNames
) -> None:
    """Write a plain model in FP32, as torch does it.

    Raises:
        InvalidArgumentError: If torch's exporter fails.
    """
    with _exporting():
        torch.onnx.export(model, arguments, str(file), **names.options)


@contextmanager
def _exporting() -> Iterator[None]:
    """Silence the exporters' warnings about their own code, and translate their errors."""
    try:
        with warnings.catch_warnings():
            for message, category, module in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category, module=module)
            yield
    except (EqAimetError, OSError):
        raise
    except Exception as error:
        text = next(iter(str(error).strip().splitlines()), "no text")
        raise InvalidArgumentError(
            "sim",
            received=f"a simulation that AIMET's ONNX exporter fails on ({type(error).__name__}: {text})",
            expected="a model whose operators and encodings ONNX has at this `opset_version`",
            remedy="4-bit, 16-bit and blockwise encodings need `opset_version=21`; other causes are named in "
            "the original error above.",
        ) from error
