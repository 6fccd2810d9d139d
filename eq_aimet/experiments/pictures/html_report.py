"""The HTML page of a run; it holds its pictures, and needs neither a network nor JavaScript."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.tables import Table
from eq_aimet.files import whole_files

__all__ = ["Picture", "Section", "build_html_report", "write_html_report"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """A picture and its caption.

    Attributes:
        png: The bytes of a PNG file.
        alt: A description of the picture for readers who can't see it.
        caption: The text below the picture; it says how to read the picture.
        width: The largest width on the page, in pixels of the screen.
    """

    png: bytes
    alt: str
    caption: str = ""
    width: int = 1000

    def __post_init__(self) -> None:
        if not isinstance(self.png, bytes) or not self.png.startswith(_PNG_SIGNATURE):
            raise InvalidArgumentError(
                "png",
                received=f"{type(self.png).__name__} that does not hold a PNG file",
                expected="the bytes of a PNG file",
                remedy="Pass the result of a `plot_…` function.",
            )

    @property
    def size(self) -> tuple[int, int]:
        """The picture's width and height in pixels, read from the PNG's header."""
        width, height = struct.unpack(">II", self.png[16:24])
        return width, height

    @property
    def data_uri(self) -> str:
        """The picture as a `data:` address."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        title: Its heading.
        text: The text below the heading.
        tables: Its tables.
        pictures: Its pictures, below the tables.
    """

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


def build_html_report(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    settings: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return a page of HTML that needs no other file, no network and no JavaScript.

    All texts are escaped. The page follows the reader's choice of light or dark, and can be printed.

    Args:
        title: The page's name.
        sections: The sections of the page, in order.
        subtitle: One line below the title.
        settings: Names and values of the run's settings, a table at the end.
        versions: Names and versions of the libraries, see `library_versions`.

    Raises:
        InvalidArgumentError: There is no title, or no section.

    Example:
        >>> page = build_html_report("A run", [Section("Findings", "3 < 4")])
        >>> "3 &lt; 4" in page
        True
    """
    if not title.strip() or not sections:
        raise InvalidArgumentError(
            "sections" if title.strip() else "title",
            received="an empty one",
            expected="a title and at least one section",
            remedy="Give the page a name and a `Section`.",
        )
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("eq_aimet.experiments.pictures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        sections=list(sections),
        settings={name: _readable(value) for name, value in (settings or {}).items()},
        versions=dict(versions or {}),
    )
    # Undecodable file names hold lone surrogates, which UTF-8 can't encode.
    return page.encode("utf-8", "replace").decode("utf-8")


def write_html_report(
    path: str | Path,
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    settings: Mapping[str, object] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Return the path of the page after writing it there; the arguments are those of `build_html_report`.

    Raises:
        InvalidArgumentError: There is no title, or no section.
        DataError: The file can't be written; an older one is still whole.
    """
    target = Path(path)
    page = build_html_report(title, sections, subtitle=subtitle, settings=settings, versions=versions)
    with whole_files([target]) as (partial,):
        partial.write_text(page, encoding="utf-8")
    return target


def _readable(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
