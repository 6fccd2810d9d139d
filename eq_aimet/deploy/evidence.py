"""Whether a comparison of outputs proves anything: the outputs vary, and the turns change the images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eq_aimet.deploy.onnx.file_inputs import FileInput
from eq_aimet.deploy.turn_test import Outputs, turn_images
from eq_aimet.symmetry.elements import Element

__all__ = ["reasons_of_inputs", "reasons_of_outputs"]

# If a larger share of the pixels lies outside the input's range, the images do not fit the calibration.
_LARGEST_SHARE = 0.5


def reasons_of_inputs(
    specs: Sequence[FileInput], images: Sequence[torch.Tensor], elements: Sequence[Element]
) -> tuple[str, ...]:
    """Return why these images prove nothing: a turn does not change them, or the file clips them."""
    reasons = []
    for spec, tensor in zip(specs, images, strict=True):
        if spec.range is None or not tensor.is_floating_point():
            continue
        lowest, highest = spec.range
        step = (highest - lowest) / 255
        share = float(((tensor < lowest - step) | (tensor > highest + step)).double().mean())
        if share > _LARGEST_SHARE:
            reasons.append(
                f"{share:.0%} of the values of `{spec.name}` lie outside of [{lowest:.3g}, {highest:.3g}], "
                "the range that the file takes. Give images like those that the encodings were computed with."
            )
    for element in elements:
        pairs = zip(turn_images(images, element), images, strict=True)
        if all(torch.equal(turned, tensor) for turned, tensor in pairs):
            reasons.append(f"All images look the same under {element}. Give images that it changes.")
            break
    return tuple(reasons)


def reasons_of_outputs(outputs: Outputs, probe: Outputs) -> tuple[str, ...]:
    """Return why the outputs prove nothing: they are not finite, or one is the same for all images.

    Args:
        outputs: The file's outputs for all images.
        probe: The file's outputs for other images; used only if `outputs` holds a single image.
    """
    reasons = []
    for name, output in outputs.items():
        shown = f"The output {name!r}" if len(outputs) > 1 else "The output"
        compared = np.concatenate([output, probe[name]]) if len(output) == 1 else output
        if not np.isfinite(output.astype(np.float64)).all():
            reasons.append(
                f"{shown} of the file holds NaN or infinite values. Look at the images and scales."
            )
        elif (compared == compared[:1]).all():
            reasons.append(
                f"{shown} of the file is the same for all images, turned or not. Give images that the "
                "network tells apart."
            )
    return tuple(reasons)
