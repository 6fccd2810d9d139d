"""Failures of a training that have a cause outside it, as errors that say what to change."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch

from eq_aimet.errors import DataError, InvalidArgumentError
from eq_aimet.experiments.foreign_files import reason
from eq_aimet.files import data_error

__all__ = ["explained_failures"]

_KEPT = "The checkpoints of all finished epochs are whole; the training resumes there when it is run again."

_DEAD_WORKER = re.compile(r"DataLoader worker \(pid")
_HAND_OVER = "torch.multiprocessing.reductions"  # the module that fetches a batch from a worker's memory
_RESTORING = re.compile("restore|resume")
_DEAD_PROCESS = re.compile(r"gloo/transport|NCCL|nccl")
# The message of CUDA, and the message of torch's allocator for the CPU.
_OUT_OF_MEMORY = re.compile(r"CUDA error: out of memory|DefaultCPUAllocator: (can't|not enough)")


@contextmanager
def explained_failures(data: lightning.LightningDataModule, checkpoint: Path | None = None) -> Iterator[None]:
    """Turn errors of the memory, of dead processes and of compilation into errors with a remedy.

    Args:
        data: The data of the training; the errors name its `batch_size` and `workers`, if it has them.
        checkpoint: The checkpoint from which the training resumes.

    Raises:
        InvalidArgumentError: The block raised an error of one of these kinds. The text names the argument to
            change.
        DataError: A worker read a damaged file, or Lightning can't resume from the checkpoint.
    """
    try:
        yield
    except DataError as error:
        # torch puts the worker's traceback around the text.
        if str(error).startswith("Caught "):
            raise DataError(str(error).rstrip().rpartition("DataError: ")[2]) from error
        raise
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(data) from error
    except Exception as error:
        if _OUT_OF_MEMORY.search(str(error)):
            raise _out_of_memory(data) from error
        if _DEAD_WORKER.search(str(error)) or _amid_a_hand_over(error):
            raise _dead_worker(data, error) from error
        if checkpoint is not None and _amid_restoring(error):
            raise data_error(
                checkpoint,
                received=f"a checkpoint with other contents ({reason(error)})",
                expected="a checkpoint of an earlier run of these settings",
                remedy="Remove the run's folder to start again.",
            ) from error
        if _DEAD_PROCESS.search(str(error)):
            raise _dead_process(error) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise _failed_compilation(error) from error
        raise


def _out_of_memory(data: lightning.LightningDataModule) -> InvalidArgumentError:
    batch_size = getattr(data, "batch_size", None)
    if batch_size is None or batch_size < 2:
        remedy = "Try smaller images (`crop`) or a narrower network (`width`)."
    else:
        remedy = f"Try `batch_size={batch_size // 2}`."
    return InvalidArgumentError(
        "batch_size",
        received=f"{'batches' if batch_size is None else batch_size}, for which the memory is too small",
        expected="a batch whose activations fit in the device's memory",
        remedy=f"{remedy} Other programs may hold memory of the device too.",
    )


def _amid_a_hand_over(error: Exception) -> bool:
    """Return whether a connection broke while a batch was fetched from a worker: then the worker died."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == _HAND_OVER for frame, _ in frames)


def _amid_restoring(error: Exception) -> bool:
    """Return whether the error came up while Lightning restored a checkpoint."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(_RESTORING.search(code.co_name) and "checkpoint" in code.co_filename for code in frames)


def _dead_worker(data: lightning.LightningDataModule, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        "workers",
        received=f"{getattr(data, 'workers', 'some')}, of which one died ({_first_line(error)})",
        expected="workers that live as long as the training",
        remedy="The system may have ended it because memory or shared memory (/dev/shm) ran out: "
        f"take fewer workers, or `workers=0`. {_KEPT}",
    )


def _dead_process(error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        "devices",
        received=f"several, and the connection to another process broke ({_first_line(error)})",
        expected="processes that live as long as the training",
        remedy=f"Look for the error of the other process above. {_KEPT}",
    )


def _first_line(error: BaseException) -> str:
    lines = (line.strip().rstrip(".") for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def _failed_compilation(error: Exception) -> InvalidArgumentError:
    cause = getattr(error, "inner_exception", error)
    return InvalidArgumentError(
        "compile",
        received=f"a model that torch.compile fails on ({_first_line(cause)})",
        expected="a model and a machine that torch.compile supports, with a C++ compiler",
        remedy="Leave `compile` out to train without torch.compile.",
    )
