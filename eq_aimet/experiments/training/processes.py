"""Which of the processes of a training this one is."""

from __future__ import annotations

import os

__all__ = ["is_first_process"]

# What torchrun, SLURM and Lightning say, each its own.
_NUMBERS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_first_process() -> bool:
    """Return whether this is the first process of a training, or the only one.

    It alone writes results and prints. Lightning need not be loaded for it.

    Example:
        >>> is_first_process()
        True
    """
    number = next((os.environ[name] for name in _NUMBERS if name in os.environ), "0")
    return number == "0"
