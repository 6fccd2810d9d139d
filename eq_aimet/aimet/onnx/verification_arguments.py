"""The checks of `verify_onnx`'s arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from eq_aimet.aimet.onnx.flat_call import value_names
from eq_aimet.deploy.onnx.file_inputs import FileInput
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.calling import named_tensors
from eq_aimet.symmetry.elements import Element
from eq_aimet.symmetry.equivariance import checked_elements

__all__ = ["check_counts", "check_images", "check_origin", "checked_turns"]

_MOST_THREADS = 128


def check_counts(threads: Any, runs: Any, reference_images: Any) -> None:
    """Check the numbers of threads, runs and reference images.

    Raises:
        InvalidArgumentError: If a value is not a whole number in its range, or `threads` is empty.
    """
    is_list = isinstance(threads, (list, tuple)) and len(threads) > 0
    if not is_list or not all(_is_whole(count, 1, _MOST_THREADS) for count in threads):
        raise InvalidArgumentError(
            "threads",
            received=repr(threads),
            expected=f"one or more whole numbers from 1 to {_MOST_THREADS}",
            remedy="Leave it out for one and two threads.",
        )
    for name, count, least in (("runs", runs, 1), ("reference_images", reference_images, 0)):
        if not _is_whole(count, least, None):
            raise InvalidArgumentError(
                name,
                received=repr(count),
                expected=f"a whole number from {least} on",
                remedy="Leave it out for the default.",
            )


def check_origin(path: str | os.PathLike[str], facts: Mapping[str, str], fingerprint: str) -> None:
    """Check that a file came from this simulation, and that the simulation did not change since then.

    Raises:
        InvalidArgumentError: If the weights or encodings of the simulation differ from those at the export.
    """
    if facts.get("simulation") != fingerprint:
        raise InvalidArgumentError(
            "sim",
            received="a simulation with other weights or encodings than those in the file",
            expected=f"the simulation that `{path}` was exported from, not changed since",
            remedy="Give that simulation, or export this one again.",
        )


def check_images(inputs: Any, specs: Sequence[FileInput]) -> list[torch.Tensor]:
    """Return the inputs as the file takes them, in the file's order, on the CPU.

    Raises:
        InvalidArgumentError: If `inputs` do not have the names, shapes and types of the file's inputs, hold
            no image, or hold values that are not finite.
    """
    named = named_tensors(inputs, "input")
    by_name = dict(zip(value_names("input", list(named)), named.values(), strict=True))
    shown = ", ".join(
        f"({', '.join(['images', *map(str, spec.shape[1:])])}) of {spec.dtype}" for spec in specs
    )
    images = []
    for spec in specs:
        tensor = by_name.get(spec.name)
        unfit = _unfit(tensor, spec) if len(by_name) == len(specs) else "a container of other inputs"
        if unfit or tensor is None:
            raise InvalidArgumentError(
                "inputs",
                received=unfit if named else f"a {type(inputs).__name__} without a tensor",
                expected=f"finite, square images of shape {shown}, in the containers that the model takes",
                remedy="Give images like those that the encodings were computed with, at least one.",
            )
        kept = tensor.detach().cpu().clone()
        images.append(kept.float() if kept.is_floating_point() else kept)
    if len({len(tensor) for tensor in images}) > 1:
        raise InvalidArgumentError(
            "inputs",
            received=f"inputs of {', '.join(str(len(tensor)) for tensor in images)} images",
            expected="one number of images in all inputs",
            remedy="Give each input once per image.",
        )
    return images


def checked_turns(
    model: torch.nn.Module, elements: Sequence[float | Element] | None, images: Sequence[torch.Tensor]
) -> tuple[Element, ...]:
    """Return the elements to test.

    Raises:
        InvalidArgumentError: If an element needs interpolation, or no input is an image.
    """
    turns = checked_elements(model, elements)
    interpolated = [str(element) for element in turns if not element.is_exact]
    if interpolated:
        raise InvalidArgumentError(
            "elements",
            received=", ".join(interpolated),
            expected="multiples of 90°, which move pixels without interpolation",
            remedy="Measure other angles with `equivariance_error(sim.model, images, elements=…)`.",
        )
    return turns


def _is_whole(value: Any, least: int, most: int | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return False
    return bool(least <= value and (most is None or value <= most))


def _unfit(tensor: torch.Tensor | None, spec: FileInput) -> str:
    """Return the reason why a tensor does not fit an input of the file, or an empty string."""
    if tensor is None:
        return f"no tensor for the input `{spec.name}`"
    shown = f"a tensor of shape {tuple(tensor.shape)} and {tensor.dtype}"
    is_float = tensor.dtype in (torch.float32, torch.float64)
    dtype = np.dtype(np.float32) if is_float else _numpy_type(tensor)
    if dtype != spec.dtype or tensor.dim() == 0 or len(tensor) == 0:
        return shown
    if tuple(tensor.shape[1:]) != spec.shape[1:]:
        return shown
    if tensor.dim() >= 4 and tensor.shape[-1] != tensor.shape[-2]:
        return shown
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
        return f"{shown} with NaN or infinite values"
    return ""


def _numpy_type(tensor: torch.Tensor) -> np.dtype[np.generic] | None:
    try:
        return np.dtype(torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    except TypeError:  # bfloat16, for example
        return None
