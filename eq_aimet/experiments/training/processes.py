"""The number of this process among the processes of a training."""

from __future__ import annotations

import os

__all__ = ["is_first_process"]

# The variables that torchrun, SLURM and Lightning set.
_NUMBERS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")


def is_first_process() -> bool:
    """Return whether this is the first process of a training, or the only one.

    Only the first process writes results and prints. The function does not import Lightning.

    Example:
        >>> is_first_process()
        True
    """
    number = next((os.environ[name] for name in _NUMBERS if name in os.environ), "0")
    return number == "0"
