"""A context in which libraries print no log messages and no warnings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet_libraries"]

# Warnings of other packages about their own insides or about settings that eq_aimet has chosen: how each
# text starts, and its category.
_WARNINGS: tuple[tuple[str, type[Warning]], ...] = (
    # Lightning calls a deprecated part of torch.
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    # Lightning advises other settings than the run's.
    (r"GPU available but not used", UserWarning),
    (r"The `srun` command is available on your system but is not used", UserWarning),
    (r"The '\w+' does not have many workers", UserWarning),
    # AIMET traces models by torch.jit, and calls deprecated parts of itself.
    (r"`torch\.jit\.\w+` is deprecated", FutureWarning),
    (r"`torch\.jit\.\w+` is deprecated", DeprecationWarning),
    (r"All modules in `aimet_torch\.v2` subpackage have been moved", DeprecationWarning),
    (r"To copy construct from a tensor", UserWarning),
    (r".*QuantizerBase\._allow_overwrite is deprecated", DeprecationWarning),
)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep log messages below ERROR, and known warnings of other packages, off the terminal.

    Lightning, AIMET and e2cnn print advertisements, advice and warnings that the user of a recipe can't act
    on. The reports of eq_aimet name each layer that eq_aimet leaves out. A warning that is not listed above
    reaches the terminal.

    Example:
        >>> with quiet_libraries():
        ...     logging.getLogger("lightning.pytorch").isEnabledFor(logging.WARNING)
        False
    """
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            for message, category in _WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logging.disable(before)
