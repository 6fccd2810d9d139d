"""Silence for libraries that talk on the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_libraries"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log messages below ERROR, and warnings, off the terminal while the block runs.

    Lightning, AIMET and e2cnn advertise, advise and warn about what can't be changed here. What this package
    itself leaves out is in its reports.

    Example:
        >>> with quiet_libraries():
        ...     logging.getLogger("lightning.pytorch").isEnabledFor(logging.WARNING)
        False
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
