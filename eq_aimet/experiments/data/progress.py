"""Progress of long work: a bar on a terminal, and lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

__all__ = ["progress_bar"]

_PAUSE_SECONDS = 5.0
_LINES = 10


def progress_bar(
    *, total: int, title: str, shown: bool, unit: str, pause: float = _PAUSE_SECONDS
) -> AbstractContextManager[Any]:
    """Return a context manager that shows on stderr how much of the work is done.

    On a terminal it shows a progress bar, if tqdm is installed. In a log file it writes a line after each
    tenth of the work, but it waits for `pause` seconds between two lines. It always writes a line at the end
    of the work.

    Args:
        total: The amount of work.
        title: The name of the work.
        shown: Whether to show the progress.
        unit: The unit of the amounts, for example "patch", or "B" for bytes.
        pause: The least number of seconds between two lines.

    Returns:
        A context manager. If `shown` is false, it gives None. Otherwise it gives an object: call its
        `update(count)` after each further `count` units of work; its `n` is the amount of finished work.

    Example:
        >>> with progress_bar(total=3, title="counting", shown=False, unit="number") as bar:
        ...     bar is None
        True
    """
    if not shown:
        return nullcontext()
    if not sys.stderr.isatty():
        return _Lines(total, title, unit, pause)
    try:
        from tqdm import tqdm
    except ImportError:
        return _Lines(total, title, unit, pause)
    bar: AbstractContextManager[Any] = tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "B")
    return bar


class _Lines:
    """Writes a line for each tenth of the work."""

    def __init__(self, total: int, title: str, unit: str, pause: float) -> None:
        self.n = 0
        self._total, self._title, self._unit, self._pause = total, title, unit, pause
        self._written = 0  # tenths
        self._last = time.monotonic()

    def update(self, count: int) -> None:
        self.n += count
        tenths = _LINES * self.n // max(self._total, 1)
        if tenths > self._written and time.monotonic() - self._last >= self._pause:
            self._write(tenths)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._written < _LINES:
            self._write(_LINES * self.n // max(self._total, 1))

    def _write(self, tenths: int) -> None:
        self._written, self._last = tenths, time.monotonic()
        share = 100 * self.n // max(self._total, 1)
        sys.stderr.write(f"{self._title}: {self.n:,} of {self._total:,} {self._unit} ({share} %)\n")
        sys.stderr.flush()
