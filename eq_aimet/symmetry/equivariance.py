"""Measuring and judging equivariance: how far a model's output moves when its input is turned or mirrored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from eq_aimet.errors import EquivarianceError, InvalidArgumentError
from eq_aimet.symmetry.elements import Element, exact_elements
from eq_aimet.symmetry.orbits import layer_asymmetry

__all__ = ["EquivarianceReport", "assert_equivariant", "equivariance_error"]

Images = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class EquivarianceReport:
    """How far each element moves a model's output, relative to the output's largest magnitude.

    Attributes:
        worst: The largest of the errors.
        worst_element: The element that has it.
        errors: Each element with its error, in the order in which they were measured.
    """

    worst: float
    worst_element: Element
    errors: tuple[tuple[Element, float], ...]

    def __float__(self) -> float:
        return self.worst

    def __str__(self) -> str:
        names = [str(element) for element, _ in self.errors]
        width = max(len("element"), *map(len, names))
        rows = [f"{name:<{width}}  {error:.3e}" for name, (_, error) in zip(names, self.errors, strict=True)]
        return "\n".join([f"{'element':<{width}}  relative change", *rows])

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return {
            "worst": self.worst,
            "worst_element": str(self.worst_element),
            "errors": {str(element): error for element, error in self.errors},
        }


def equivariance_error(
    model: torch.nn.Module,
    x: Images,
    *,
    dtype: torch.dtype = torch.float64,
    elements: Sequence[float | Element] | None = None,
    transform_output: Callable[[torch.Tensor, Element], torch.Tensor] | None = None,
) -> EquivarianceReport:
    """Return how far turning the input moves the model's output, relative to its largest magnitude.

    The error of an element g is max |f(gx) − g f(x)| / max |f(x)|. It is measured on a copy of the model
    in eval mode, in float64 by default, because float32's summation order alone flips roundings of a
    quantized model. `model` stays as it is. Where f(x) is zero, the error is relative to f(gx), so 1.0,
    and 0.0 if that is zero as well.

    Args:
        model: A module that maps images to a tensor, or to nested tuples, lists or dictionaries of tensors.
        x: Square images, (batch, channels, H, H), or a tuple of them for a model of several inputs.
        dtype: The floating-point type to compute in.
        elements: Angles in degrees (counter-clockwise) or `Element`s. The exact ones of the model's layers
            if left out, see `exact_elements`. Angles other than multiples of 90° are interpolated, and
            both the turned and the unturned image are zeroed outside the inscribed circle.
        transform_output: How an element acts on an output. If left out, an output of four dimensions is
            turned as an image with invariant channels, and others are invariant.

    Raises:
        InvalidArgumentError: If an argument is unfit, the model can't run on it, or the output isn't finite.

    Example:
        >>> images = torch.rand(2, 3, 9, 9)
        >>> float(equivariance_error(torch.nn.AvgPool2d(3), images)) < 1e-12
        True
        >>> float(equivariance_error(torch.nn.Flatten(), images)) > 0.1
        True
    """
    inputs = _checked_inputs(x, dtype)
    chosen = _checked_elements(model, elements)
    judge = _copy_for_judging(model, dtype)
    references: dict[bool, list[torch.Tensor]] = {}
    errors = []
    with torch.no_grad():
        for element in chosen:
            exact = element.is_exact
            if exact not in references:
                references[exact] = _run(judge, inputs if exact else [_in_circle(image) for image in inputs])
            turned = [element.turn(image) for image in inputs]
            outputs = _run(judge, turned if exact else [_in_circle(image) for image in turned])
            error = max(
                _relative_change(output, reference, element, transform_output)
                for output, reference in zip(outputs, references[exact], strict=True)
            )
            errors.append((element, error))
    worst_element, worst = max(errors, key=lambda pair: pair[1])
    return EquivarianceReport(worst, worst_element, tuple(errors))


def assert_equivariant(
    model: torch.nn.Module,
    x: Images,
    *,
    tolerance: float = 1e-10,
    dtype: torch.dtype = torch.float64,
    elements: Sequence[float | Element] | None = None,
    transform_output: Callable[[torch.Tensor, Element], torch.Tensor] | None = None,
) -> None:
    """Raise unless `equivariance_error(model, x)` is at most `tolerance`; the arguments are the same.

    Raises:
        EquivarianceError: If the error of an element is larger than `tolerance`. It is an `AssertionError`
            too.

    Example:
        >>> assert_equivariant(torch.nn.AvgPool2d(3), torch.rand(2, 3, 9, 9))
    """
    if not tolerance >= 0.0:
        raise InvalidArgumentError(
            "tolerance",
            received=tolerance,
            expected="a relative error of 0 or more",
            remedy="Use 0.0 to ask for bit-identical outputs.",
        )
    report = equivariance_error(model, x, dtype=dtype, elements=elements, transform_output=transform_output)
    if report.worst <= tolerance:
        return
    untied = [
        name or type(layer).__name__ for name, layer in model.named_modules() if layer_asymmetry(layer) > 0.0
    ]
    if untied:
        names = ", ".join(untied[:5]) + (f" and {len(untied) - 5} more" if len(untied) > 5 else "")
        cause = f"Weights of one orbit differ in {names}; `symmetrize` ties them."
    else:
        cause = (
            "Likely causes: a stride or pooling on an even grid, which samples off-centre; encodings that "
            "differ within an orbit (`tie_encodings` ties them); an angle that is not exact; outputs that "
            "need `transform_output`."
        )
    raise EquivarianceError(
        f"Under {report.worst_element} the output changes by {report.worst:.3e} of its largest magnitude; "
        f"tolerance {tolerance:g}. {cause}\n{report}"
    )


def _checked_inputs(x: Images, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return the input tensors in `dtype`."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InvalidArgumentError(
            "dtype",
            received=dtype,
            expected="a floating-point torch.dtype",
            remedy="Leave it out to compute in float64.",
        )
    inputs: list[torch.Tensor] = list(x) if isinstance(x, (tuple, list)) else [x]
    if not inputs:
        raise _unfit_input("an empty tuple")
    for image in inputs:
        if not isinstance(image, torch.Tensor):
            raise _unfit_input(f"a {type(image).__name__}")
        if not image.is_floating_point():
            raise _unfit_input(f"a tensor of {image.dtype}")
        if image.dim() != 4 or image.shape[-1] != image.shape[-2] or 0 in image.shape:
            raise _unfit_input(f"shape {tuple(image.shape)}")
        if not torch.isfinite(image).all():
            raise _unfit_input("NaN or infinite values")
    return [image.detach().to(dtype) for image in inputs]


def _unfit_input(received: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        "x",
        received=received,
        expected="a finite floating-point tensor of square images, (batch, channels, H, H), or a tuple",
        remedy="Convert to float, add the batch dimension, or crop the images to squares.",
    )


def _checked_elements(
    model: torch.nn.Module, elements: Sequence[float | Element] | None
) -> tuple[Element, ...]:
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__}",
            expected="a torch.nn.Module",
            remedy="Of AIMET's QuantizationSimModel pass `sim.model`.",
        )
    if elements is None:
        chosen = exact_elements(model)
        remedy = "No quarter turn is exact for this model; pass angles of its group, e.g. `elements=[120]`."
    else:
        chosen = _as_elements(elements)
        remedy = "Leave `elements` out to use the quarter turns that are exact for the model."
    if not chosen:
        raise InvalidArgumentError(
            "elements",
            received="none" if elements is None else repr(elements),
            expected="at least one angle in degrees or `Element`",
            remedy=remedy,
        )
    return chosen


def _as_elements(elements: Sequence[float | Element]) -> tuple[Element, ...]:
    """Return the angles as `Element`s, or nothing if they aren't all such."""
    if not isinstance(elements, (Sequence, set, frozenset)):
        return ()
    if not all(isinstance(element, (Element, int, float)) for element in elements):
        return ()
    chosen = [element if isinstance(element, Element) else Element(element) for element in elements]
    return tuple(chosen) if all(math.isfinite(element.angle) for element in chosen) else ()


def _copy_for_judging(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    try:
        return copy.deepcopy(model).to(dtype).eval()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InvalidArgumentError(
            "model",
            received=f"a {type(model).__name__} that can't be copied to {dtype} ({error})",
            expected="a module that supports copy.deepcopy and .to(dtype)",
            remedy="Detach tensors that the model holds outside of its parameters and buffers.",
        ) from error


def _run(model: torch.nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the output tensors of `model`, flattened out of tuples, lists and dictionaries."""
    shapes = ", ".join(str(tuple(image.shape)) for image in inputs)
    try:
        outputs = model(*inputs)
    except Exception as error:
        raise InvalidArgumentError(
            "x",
            received=f"{shapes}, on which the model fails with {type(error).__name__}: {error}",
            expected=f"images that {type(model).__name__} takes, on the model's device",
            remedy="Compare shape and device with what the model was built for; the original error is above.",
        ) from error
    tensors = list(_tensors(outputs))
    if tensors and all(torch.isfinite(tensor).all() for tensor in tensors):
        return tensors
    raise InvalidArgumentError(
        "model",
        received="an output with NaN or infinite values" if tensors else "an output without tensors",
        expected="finite tensors",
        remedy="Look at the weights and at `x`: the model is broken before any image is turned.",
    )


def _tensors(outputs: object) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, dict):
        yield from _tensors(tuple(outputs.values()))
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _tensors(output)


def _relative_change(
    output: torch.Tensor,
    reference: torch.Tensor,
    element: Element,
    transform_output: Callable[[torch.Tensor, Element], torch.Tensor] | None,
) -> float:
    expected = reference
    if transform_output is not None:
        expected = transform_output(reference, element)
    elif reference.dim() == 4:
        expected = element.turn(reference)
        if not element.is_exact:
            expected, output = _in_circle(expected), _in_circle(output)
    if not isinstance(expected, torch.Tensor) or expected.shape != output.shape:
        raise InvalidArgumentError(
            "model" if transform_output is None else "transform_output",
            received=f"output shapes {tuple(output.shape)} under {element}, {tuple(reference.shape)} without",
            expected="the same shape once the element has acted on the latter",
            remedy="Pass a `transform_output` that acts as the output's type does.",
        )
    scale = float(reference.abs().max()) or float(output.abs().max()) or 1.0
    return float((output - expected).abs().max()) / scale


def _in_circle(images: torch.Tensor) -> torch.Tensor:
    """Return `images`, of shape (…, H, H), with zeros outside the inscribed circle."""
    height, width = images.shape[-2:]
    y = (2 * torch.arange(height, device=images.device, dtype=images.dtype) + 1) / height - 1
    x = (2 * torch.arange(width, device=images.device, dtype=images.dtype) + 1) / width - 1
    return images * (y[:, None].square() + x.square() <= 1)
