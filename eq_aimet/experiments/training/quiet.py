"""A context in which libraries print no log messages and no warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_libraries"]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log messages below ERROR, and warnings, off the terminal while the block runs.

    Lightning, AIMET and e2cnn print advertisements, advice and warnings that the user of a recipe can't act
    on. The reports of eq_aimet name each layer that eq_aimet leaves out.

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
