"""Runs the simulation of a file, and its FP32 model, on the images of a verification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.onnx.export_arguments import DEFAULT_OPSET
from eq_aimet.aimet.onnx.flat_call import flatten_call
from eq_aimet.aimet.onnx.writing import FileNames, write_float
from eq_aimet.aimet.simulation.dummy_input import checked_input
from eq_aimet.deploy.batches import fill_batch, run_in_batches
from eq_aimet.deploy.turn_test import Outputs
from eq_aimet.symmetry.calling import map_tensors, tensors_in

__all__ = ["VerifiedModel"]

_BATCH = 64


class VerifiedModel:
    """Copies of a simulated model and of its FP32 model, which take the images of a verification.

    Args:
        sim: A copy of the simulation that nothing else uses.
        inputs: The images, in the containers that the model takes.
        batch: The batch size of the file.

    Attributes:
        output_names: The places of the tensors in the model's output.

    Raises:
        InvalidArgumentError: If the model fails on the images.
    """

    def __init__(self, sim: QuantizationSimModel, inputs: Any, batch: int) -> None:
        self._simulated = sim.model
        self._float = QuantizationSimModel.get_original_model(sim.model).eval()
        self._inputs = tensors_in(inputs)
        self._batch = batch
        first = map_tensors(lambda tensor: tensor[:batch], inputs)
        example = checked_input(self._simulated, first, argument="inputs")
        self._places, self.output_names = flatten_call(self._simulated, example)
        flatten_call(self._float, example)

    def simulated(self) -> Outputs:
        """Return the simulation's outputs for all images."""
        return self._run(self._simulated)

    def unquantized(self) -> Outputs:
        """Return the FP32 model's outputs for all images."""
        return self._run(self._float)

    def write_float(self, file: Path) -> list[np.ndarray]:
        """Write the FP32 model to a file, and return a batch that the file takes."""
        batch = [fill_batch(tensor.numpy(), self._batch) for tensor in self._converted()]
        device = next((one.device for one in self._float.parameters()), torch.device("cpu"))
        names = FileNames(self._places, self.output_names, DEFAULT_OPSET)
        write_float(self._float, tuple(torch.from_numpy(array).to(device) for array in batch), file, names)
        return batch

    def _converted(self) -> list[torch.Tensor]:
        tensors = [tensor.detach().cpu().clone() for tensor in self._inputs]
        return [tensor.float() if tensor.is_floating_point() else tensor for tensor in tensors]

    def _run(self, model: torch.nn.Module) -> Outputs:
        device = next((one.device for one in model.parameters()), torch.device("cpu"))

        @torch.no_grad()
        def run(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
            outputs = model(*(torch.from_numpy(array).to(device) for array in batch))
            return [output.as_subclass(torch.Tensor).cpu().numpy() for output in outputs]

        arrays = [tensor.numpy() for tensor in self._converted()]
        outputs = run_in_batches(run, arrays, min(_BATCH, len(arrays[0])))
        return dict(zip(self.output_names, outputs, strict=True))
