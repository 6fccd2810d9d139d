"""Tables of text, which can be shown as Markdown, on a terminal or in HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eq_aimet.errors import InvalidArgumentError

if TYPE_CHECKING:
    import rich.table

__all__ = ["Table", "markdown_heading", "markdown_row"]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        headings: The heading of each column.
        rows: The rows, each with one cell for each heading.
        caption: The text above the table.
        notes: The lines below the table.

    Example:
        >>> table = Table(("model", "drop"), (("a", "0.5"),))
        >>> print(table.to_markdown(), end="")
        | model | drop |
        | --- | ---: |
        | a | 0.5 |
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headings):
                raise InvalidArgumentError(
                    "rows",
                    received=f"a row of {len(row)} cells",
                    expected=f"{len(self.headings)} cells, one for each heading",
                    remedy="Fill missing cells with an empty text.",
                )

    def to_markdown(self) -> str:
        """Return the headings and the rows as a Markdown table that ends in a newline."""
        lines = [*markdown_heading(self.headings), *(markdown_row(row) for row in self.rows)]
        return "".join(f"{line}\n" for line in lines)

    def to_terminal(self) -> rich.table.Table:
        """Return the table for a `rich` console, with the caption as its title.

        Each heading breaks after its first word, so that a table of many columns fits in 80 characters.
        """
        from rich import box
        from rich.table import Table as TerminalTable

        table = TerminalTable(
            title=self.caption or None,
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title_justify="left",
            title_style="bold",
        )
        for index, heading in enumerate(self.headings):
            first, _, second = heading.partition(" ")
            # Only the first column may break, so that the figures stay whole.
            table.add_column(f"{first}\n{second}", justify="right" if index else "left", no_wrap=index > 0)
        for row in self.rows:
            table.add_row(*row)
        return table


def markdown_heading(headings: Sequence[str]) -> tuple[str, str]:
    """Return the two lines of Markdown above a table's first row; all columns but the first align right.

    Example:
        >>> markdown_heading(("model", "drop"))
        ('| model | drop |', '| --- | ---: |')
    """
    return markdown_row(headings), markdown_row(("---", *("---:" for _ in headings[1:])))


def markdown_row(cells: Sequence[str]) -> str:
    """Return a row as one line of Markdown; bars in a cell are escaped, and line ends become spaces.

    Example:
        >>> markdown_row(("a", "0.5"))
        '| a | 0.5 |'
    """
    escaped = (" ".join(cell.replace("|", r"\|").splitlines()) for cell in cells)
    return f"| {' | '.join(escaped)} |"
