"""The test of a file: its outputs for turned images against its outputs for the unturned images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from eq_aimet.deploy.batches import run_in_batches
from eq_aimet.deploy.findings import ElementCheck
from eq_aimet.deploy.runtimes.runtime import OpenedFile, Runtime
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.elements import Element
from eq_aimet.symmetry.outputs import TransformOutput, expected_output, transform_for

__all__ = ["Outputs", "TurnTest", "turn_images"]

Outputs = dict[str, np.ndarray]


def turn_images(inputs: Sequence[torch.Tensor], element: Element) -> list[torch.Tensor]:
    """Return the inputs with their images turned; inputs of fewer than four dimensions stay as they are."""
    return [element.turn(tensor) if tensor.dim() >= 4 else tensor for tensor in inputs]


@dataclass(frozen=True)
class TurnTest:
    """A file, the images to run, and how the outputs should change when the images are turned.

    Attributes:
        file: The file.
        images: One tensor per input of the file.
        batch: The batch size that the file was exported for.
        elements: The turns and reflections.
        transform_output: The function that applies an element to an output, see `equivariance_error`.
        outputs_of_file: The names of the outputs in the file's order.
        steps: The step of each output's quantizer, `None` for an output without one; see `output_steps`.
    """

    file: Path
    images: Sequence[torch.Tensor]
    batch: int
    elements: Sequence[Element]
    transform_output: TransformOutput | None
    outputs_of_file: Sequence[str]
    steps: Sequence[float | None]

    def run(self, runtime: Runtime, threads: int) -> tuple[ElementCheck, ...]:
        """Return, for each element and output, the number of images with a changed bit."""
        opened = runtime.open(self.file, threads=threads)
        return self.checks(opened, runtime.name, threads, self.outputs(opened))

    def checks(
        self, opened: OpenedFile, runtime: str, threads: int, reference: Outputs
    ) -> tuple[ElementCheck, ...]:
        """Return, for each element and output, the number of images that differ from the `reference`."""
        return tuple(
            replace(check, runtime=runtime, threads=threads)
            for element in self.elements
            for check in self._check(
                element, reference, self.outputs(opened, turn_images(self.images, element))
            )
        )

    def outputs(self, opened: OpenedFile, images: Sequence[torch.Tensor] | None = None) -> Outputs:
        """Return the outputs for all images by name; without `images`, for the test's own images."""
        arrays = [tensor.numpy() for tensor in (self.images if images is None else images)]
        outputs = run_in_batches(opened.run, arrays, self.batch)
        return dict(zip(self.outputs_of_file, outputs, strict=True))

    def probe(self, opened: OpenedFile) -> Outputs:
        """Return the outputs for other images: half as bright, and with their pixels shuffled."""
        generator = torch.Generator().manual_seed(0)
        images = []
        for tensor in self.images:
            if not tensor.is_floating_point():
                images.append(torch.cat([tensor, tensor]))
                continue
            flat = tensor.flatten(1)
            order = torch.randperm(flat.shape[1], generator=generator)
            images.append(torch.cat([tensor / 2, flat[:, order].reshape(tensor.shape)]))
        return self.outputs(opened, images)

    def _check(self, element: Element, reference: Outputs, outputs: Outputs) -> list[ElementCheck]:
        checks = []
        for (name, output), step in zip(outputs.items(), self.steps, strict=True):
            unturned = torch.from_numpy(reference[name])
            acted = expected_output(unturned, element, transform_for(self.transform_output, name), name)
            expected = acted.detach().cpu().numpy()
            if expected.shape != output.shape:
                raise InvalidArgumentError(
                    "transform_output",
                    received=f"an output {name!r} of shape {expected.shape} once {element} has acted on it",
                    expected=f"the shape {output.shape} that the file returns for turned images",
                    remedy="Pass a `transform_output` that acts on this output as the group does.",
                )
            differs = (output != expected).reshape(len(output), -1).any(1)
            apart = np.abs(output.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
            largest = float(np.abs(reference[name].astype(np.float64)).max(initial=0.0)) or 1.0
            worst = float(apart) / largest
            steps = None if step is None else round(float(apart) / step, 3)  # float32 has 7 digits
            checks.append(ElementCheck(str(element), 0, int(differs.sum()), worst, name, steps))
        return checks
