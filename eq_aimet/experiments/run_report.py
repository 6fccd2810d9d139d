"""The report of a run: the PNG files and `report.html`, drawn from the measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.pictures.html_report import Section, build_html_report
from eq_aimet.experiments.pictures.versions import library_versions
from eq_aimet.experiments.run_sections import (
    example_section,
    range_section,
    stability_section,
    table_section,
    training_section,
)
from eq_aimet.files import data_error, whole_files

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.pictures.predictions import Predictions
    from eq_aimet.experiments.pictures.stability import Stability
    from eq_aimet.experiments.pictures.weight_ranges import LayerRanges
    from eq_aimet.experiments.run_table import TableRow
    from eq_aimet.experiments.training.history import EpochRecord

__all__ = ["RunFindings", "write_run_report"]


@dataclass(frozen=True)
class RunFindings:
    """The measurements of a run. The report leaves out the section of each empty attribute.

    Attributes:
        rows: Each model's row of the tables.
        histories: Each model's epochs.
        ranges: Each model's weight ranges before (with folded batch norms) and after equalization.
        stabilities: Each model's stability in each precision.
        predictions: The predictions on `images`, keyed by the name of the model and the precision.
        images: The images of the predictions.
        class_names: The names of the classes, in the order of the labels.
        test_images: The number of images on which the accuracies were measured.
    """

    rows: Sequence[TableRow] = ()
    histories: Mapping[str, Sequence[EpochRecord]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[Sequence[LayerRanges], Sequence[LayerRanges]]] = field(default_factory=dict)
    stabilities: Mapping[str, Mapping[str, Stability]] = field(default_factory=dict)
    predictions: Mapping[str, Predictions] = field(default_factory=dict)
    images: torch.Tensor | None = None
    class_names: Sequence[str] = ()
    test_images: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements as plain values for JSON, without the images and the single weights."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "ranges": {
                model: [
                    {"layer": old.name, "kind": old.kind, "before": old.ratio, "after": new.ratio}
                    for old, new in zip(before, after, strict=True)
                ]
                for model, (before, after) in self.ranges.items()
            },
            "stabilities": {
                model: {precision: found.to_dict() for precision, found in precisions.items()}
                for model, precisions in self.stabilities.items()
            },
            "predictions": {name: found.to_dict() for name, found in self.predictions.items()},
        }


def write_run_report(
    folder: str | Path,
    findings: RunFindings,
    *,
    title: str,
    subtitle: str = "",
    settings: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Return the path of `report.html` after writing it, and `pictures/*.png`, into the run's folder.

    The page embeds the pictures, so you can send the page alone. No file is left half-written.

    Args:
        folder: The folder of the run, which must exist.
        findings: The measurements.
        title: The title of the page.
        subtitle: One line below the title.
        settings: The names and values of the run's settings.
        notes: The lines below the tables.

    Raises:
        InvalidArgumentError: There are no findings, or the findings do not fit each other.
        DataError: A file can't be written. Older files are still whole.

    Example:
        >>> import tempfile
        >>> from eq_aimet.experiments.pictures import Stability
        >>> steady = Stability((0.0, 90.0, 180.0, 270.0), (1.0,) * 4, (0.0,) * 4, images=8)
        >>> findings = RunFindings(stabilities={"equivariant": {"INT8": steady}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_run_report(folder, findings, title="A run")
        ...     sorted(path.name for path in page.parent.rglob("*.*"))
        ['report.html', 'stability.png']
    """
    sections, pictures = _draw(findings, notes)
    page = build_html_report(
        title, sections, subtitle=subtitle, settings=settings, versions=library_versions()
    )
    path = Path(folder)
    contents = {path / "pictures" / f"{name}.png": png for name, png in pictures.items()}
    contents[path / "report.html"] = page.encode()
    try:
        (path / "pictures").mkdir(exist_ok=True)
    except OSError as error:
        raise data_error(
            path / "pictures",
            received=f"a folder that can't be made ({error.strerror})",
            expected="a folder for the pictures in a folder that exists",
            remedy="Make the run's folder first, or free some space.",
        ) from error
    with whole_files(list(contents)) as partial:
        for target, content in zip(partial, contents.values(), strict=True):
            target.write_bytes(content)
    return path / "report.html"


def _draw(findings: RunFindings, notes: Sequence[str]) -> tuple[list[Section], dict[str, bytes]]:
    """Return the sections of the report, and its pictures keyed by file name."""
    if findings.predictions and findings.images is None:
        raise InvalidArgumentError(
            "findings",
            received="predictions without their images",
            expected="both, or neither",
            remedy="Pass `images` too.",
        )
    drawn = []
    if findings.rows:
        drawn.append(table_section(findings.rows, findings.test_images, notes))
    if findings.stabilities:
        drawn.append(stability_section(findings.stabilities))
    if findings.ranges:
        drawn.append(range_section(findings.ranges))
    if findings.predictions and findings.images is not None:
        drawn.append(example_section(findings.images, findings.predictions, findings.class_names))
    if findings.histories:
        drawn.append(training_section(findings.histories))
    if not drawn:
        raise InvalidArgumentError(
            "findings",
            received="nothing that was measured",
            expected="at least one of rows, histories, ranges, stabilities and predictions",
            remedy="Measure the run first.",
        )
    sections = [section for section, _ in drawn]
    names = [name for _, named in drawn for name in named]
    pngs = [picture.png for section in sections for picture in section.pictures]
    return sections, dict(zip(names, pngs, strict=True))
