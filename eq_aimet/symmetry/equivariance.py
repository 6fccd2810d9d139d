"""Measuring and judging equivariance: the change of a model's output when its input is turned or mirrored."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from eq_aimet.errors import EquivarianceError, InvalidArgumentError
from eq_aimet.symmetry.elements import Element, exact_elements
from eq_aimet.symmetry.equivariance_report import EquivarianceReport, OutputChange
from eq_aimet.symmetry.judging import Inputs, checked_inputs, copy_for_judging, map_images, run_model
from eq_aimet.symmetry.orbits import layer_asymmetry
from eq_aimet.symmetry.outputs import TransformOutput, expected_output, transform_for

__all__ = ["assert_equivariant", "checked_elements", "equivariance_error"]

logger = logging.getLogger(__name__)


def equivariance_error(
    model: torch.nn.Module,
    inputs: Inputs,
    *,
    dtype: torch.dtype = torch.float64,
    elements: Sequence[float | Element] | None = None,
    transform_output: TransformOutput | None = None,
) -> EquivarianceReport:
    """Return how far turning the input moves each output of the model, relative to its largest magnitude.

    The error of an element g is max |f(gx) − g f(x)| / max |f(x)|, for each output separately. The function
    measures it on a copy of the model in eval mode, and does not change `model`. The default is float64,
    because in float32 the summation order alone flips roundings of a quantized model. If f(x) is zero, the
    error is relative to f(gx), so the error is 1.0, or 0.0 if f(gx) is zero too.

    Args:
        model: A module that returns a tensor, or nested tuples, lists or dictionaries of tensors.
        inputs: Square images, (batch, channels, H, H); a tuple or list for a model of several inputs, or a
            dictionary for inputs by name. An input of four or more dimensions is turned in its last two;
            another input, for example a vector of numbers, is not changed.
        dtype: The floating-point type to compute in, also where the model's code asks for another type
            (`x.float()`, `torch.zeros(3)`).
        elements: Angles in degrees (counter-clockwise) or `Element`s. If left out, the function uses the
            exact elements of the model's layers, see `exact_elements`. If only the identity is exact, the
            report is empty.
            Angles other than multiples of 90° are interpolated, and both the turned and the unturned image
            are zeroed outside the inscribed circle.
        transform_output: How an element acts on an output: a function of (output, element), or of (output,
            element, name), where the name is "output" for a single output, and else the output's place, e.g.
            "0", "logits" or "boxes.0". If left out, an output of four or more dimensions is turned as an
            image with invariant channels, and another output is invariant.

    Raises:
        InvalidArgumentError: If an argument has an invalid value.
        ForwardError: If the model's own code raises an error, or an output is not finite.

    Example:
        >>> images = torch.rand(2, 3, 9, 9)
        >>> float(equivariance_error(torch.nn.AvgPool2d(3), images)) < 1e-12
        True
        >>> float(equivariance_error(torch.nn.Flatten(), images)) > 0.1
        True
    """
    unturned_inputs = checked_inputs(inputs, dtype)
    judge = copy_for_judging(model, dtype)
    references: dict[bool, dict[str, torch.Tensor]] = {}
    changes: list[OutputChange] = []
    for element in checked_elements(model, elements):
        exact = element.is_exact
        if exact not in references:
            unturned = unturned_inputs if exact else map_images(unturned_inputs, _in_circle)
            references[exact] = run_model(judge, unturned, dtype, "the unturned inputs")
        turned = map_images(unturned_inputs, element.turn)
        turned = turned if exact else map_images(turned, _in_circle)
        outputs = run_model(judge, turned, dtype, f"the inputs turned by {element}")
        changes += _changes(outputs, references[exact], element, transform_output)
    return EquivarianceReport(tuple(changes))


def assert_equivariant(
    model: torch.nn.Module,
    inputs: Inputs,
    *,
    tolerance: float = 1e-10,
    dtype: torch.dtype = torch.float64,
    elements: Sequence[float | Element] | None = None,
    transform_output: TransformOutput | None = None,
) -> None:
    """Raise unless `equivariance_error` is at most `tolerance`.

    The other arguments are those of `equivariance_error`. If only the identity is exact for the model
    and `elements` is left out, there is nothing to judge: the function logs a warning and raises no error.

    Raises:
        EquivarianceError: If the error of an element is larger than `tolerance`. It is an `AssertionError`
            too.

    Example:
        >>> assert_equivariant(torch.nn.AvgPool2d(3), torch.rand(2, 3, 9, 9))
    """
    if not isinstance(tolerance, (int, float)) or not tolerance >= 0.0:
        raise InvalidArgumentError(
            "tolerance",
            received=tolerance,
            expected="a relative error of 0 or more",
            remedy="Use 0.0 to ask for bit-identical outputs.",
        )
    report = equivariance_error(
        model, inputs, dtype=dtype, elements=elements, transform_output=transform_output
    )
    if not report.changes:
        logger.warning("%s", report)
    if report.worst <= tolerance:
        return
    output = f" {report.worst_output!r}" if len(report.outputs) > 1 else ""
    raise EquivarianceError(
        f"Under {report.worst_element} the output{output} changes by {report.worst:.3e} of its largest "
        f"magnitude; tolerance {tolerance:g}. {_cause(model)}\n{report}"
    )


def _cause(model: torch.nn.Module) -> str:
    """Return a text on the untied weights, or on the next check if the weights of every orbit are equal."""
    untied = [
        name or type(layer).__name__ for name, layer in model.named_modules() if layer_asymmetry(layer) > 0.0
    ]
    if untied:
        names = ", ".join(untied[:5]) + (f" and {len(untied) - 5} more" if len(untied) > 5 else "")
        return f"Weights of one orbit differ in {names}; `symmetrize` ties them."
    return (
        "No weights of one orbit differ, so the cause lies elsewhere. Check for: a stride or pooling on an "
        "even grid, which samples off-centre; encodings that differ within an orbit (`tie_encodings` ties "
        "them); an angle that is not exact; an output that needs `transform_output`."
    )


def checked_elements(
    model: torch.nn.Module, elements: Sequence[float | Element] | None
) -> tuple[Element, ...]:
    """Return `elements` as `Element`s, or the exact elements of `model` if they are left out.

    The result is empty only if `elements` is `None` and the model has no exact element but the identity.

    Raises:
        InvalidArgumentError: If `elements` is empty or holds something other than finite angles and
            `Element`s.
    """
    if elements is None:
        return exact_elements(model)
    chosen = _as_elements(elements)
    if chosen:
        return chosen
    raise InvalidArgumentError(
        "elements",
        received=repr(elements),
        expected="at least one angle in degrees or `Element`",
        remedy="Leave `elements` out to use the quarter turns and reflections that are exact for the model.",
    )


def _as_elements(elements: Sequence[float | Element]) -> tuple[Element, ...]:
    """Return the angles as `Element`s, or `()` if an entry is neither a finite number nor an `Element`."""
    if not isinstance(elements, (Sequence, set, frozenset)):
        return ()
    if not all(isinstance(element, (Element, int, float)) for element in elements):
        return ()
    chosen = [element if isinstance(element, Element) else Element(element) for element in elements]
    return tuple(chosen) if all(math.isfinite(element.angle) for element in chosen) else ()


def _changes(
    outputs: dict[str, torch.Tensor],
    references: dict[str, torch.Tensor],
    element: Element,
    transform_output: TransformOutput | None,
) -> list[OutputChange]:
    """Return how far `element` moves each output.

    Raises:
        EquivarianceError: If the turned input has other outputs than the unturned input.
    """
    if list(outputs) != list(references):
        raise EquivarianceError(
            f"Under {element} the model returns the outputs {list(outputs)}, and {list(references)} without: "
            "it takes another path through its `forward`."
        )
    return [
        OutputChange(element, name, _change(output, references[name], element, name, transform_output))
        for name, output in outputs.items()
    ]


def _change(
    output: torch.Tensor,
    reference: torch.Tensor,
    element: Element,
    name: str,
    transform_output: TransformOutput | None,
) -> float:
    transform = transform_for(transform_output, name)
    expected = expected_output(reference, element, transform, name)
    if expected.shape != output.shape:
        raise InvalidArgumentError(
            "transform_output",
            received=f"output {name!r} of shape {tuple(output.shape)} under {element}, and of shape "
            f"{tuple(expected.shape)} once the element has acted on the output for the unturned input",
            expected="one shape",
            remedy="Pass a `transform_output` that acts on this output as the group does.",
        )
    if transform is None and expected.dim() >= 4 and not element.is_exact:
        expected, output = _in_circle(expected), _in_circle(output)
    if output.numel() == 0:
        return 0.0
    scale = float(reference.abs().max()) or float(output.abs().max()) or 1.0
    return float((output - expected).abs().max()) / scale


def _in_circle(images: torch.Tensor) -> torch.Tensor:
    """Return `images`, of shape (…, H, H), with zeros outside the inscribed circle."""
    height, width = images.shape[-2:]
    y = (2 * torch.arange(height, device=images.device, dtype=images.dtype) + 1) / height - 1
    x = (2 * torch.arange(width, device=images.device, dtype=images.dtype) + 1) / width - 1
    return images * (y[:, None].square() + x.square() <= 1)
