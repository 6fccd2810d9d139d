"""The report of `equivariance_error`: how far each element moves each output of a model."""

from __future__ import annotations

from dataclasses import dataclass

from eq_aimet.symmetry.elements import Element

__all__ = ["EquivarianceReport", "OutputChange"]


@dataclass(frozen=True)
class OutputChange:
    """How far one element moves one output.

    Attributes:
        element: The turn or reflection of the input.
        output: The output's name, see `named_tensors`.
        error: max |f(gx) − g f(x)| / max |f(x)| of this output.
    """

    element: Element
    output: str
    error: float


@dataclass(frozen=True)
class EquivarianceReport:
    """How far each element moves a model's outputs, relative to the largest magnitude of each output.

    Attributes:
        changes: One entry for each element and output, in the order of measuring. It is empty if the model
            has no exact element but the identity and the caller gave no other elements.
    """

    changes: tuple[OutputChange, ...]

    @property
    def worst(self) -> float:
        """The largest of the errors; 0.0 if nothing was measured."""
        return max((change.error for change in self.changes), default=0.0)

    @property
    def worst_element(self) -> Element:
        """The element with the largest error; the identity if nothing was measured."""
        return self._worst_change.element

    @property
    def worst_output(self) -> str:
        """The name of the output with the largest error."""
        return self._worst_change.output

    @property
    def errors(self) -> tuple[tuple[Element, float], ...]:
        """Each element with the largest error of all outputs."""
        worst: dict[Element, float] = {}
        for change in self.changes:
            worst[change.element] = max(change.error, worst.get(change.element, 0.0))
        return tuple(worst.items())

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the model's outputs."""
        return tuple(dict.fromkeys(change.output for change in self.changes))

    @property
    def _worst_change(self) -> OutputChange:
        return max(
            self.changes, key=lambda change: change.error, default=OutputChange(Element(0), "output", 0.0)
        )

    def __float__(self) -> float:
        return self.worst

    def __str__(self) -> str:
        if not self.changes:
            return (
                "Nothing to judge: no turn or reflection but the identity is exact for this model. "
                "Give the angles of its group to measure it, e.g. `elements=[120]`."
            )
        rows = [("element", "output", "relative change")]
        rows += [(str(one.element), one.output, f"{one.error:.3e}") for one in self.changes]
        if len(self.outputs) == 1:
            rows = [(element, "", error) for element, _, error in rows]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = []
        for element, output, error in rows:
            middle = f"{output:<{widths[1]}}  " if widths[1] else ""
            lines.append(f"{element:<{widths[0]}}  {middle}{error}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return {
            "worst": self.worst,
            "worst_element": str(self.worst_element),
            "worst_output": self.worst_output,
            "errors": {str(element): error for element, error in self.errors},
            "outputs": {
                output: {str(one.element): one.error for one in self.changes if one.output == output}
                for output in self.outputs
            },
        }
