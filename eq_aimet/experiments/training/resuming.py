"""The checkpoint from which an interrupted training resumes: the last undamaged one of this training."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.foreign_files import READING_ERRORS, reason
from eq_aimet.experiments.training.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    EpochCheckpoint,
    UnusableCheckpointError,
    load_checkpoint,
    write_checkpoint,
)
from eq_aimet.files import data_error, remove_partial

__all__ = ["DAMAGED", "checkpoint_to_resume", "prepare_folder"]

DAMAGED = "damaged.ckpt"

_PARTS: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "callbacks": dict,
}


def prepare_folder(folder: Path) -> None:
    """Make the folder if it is missing, and remove half-written files of a killed training.

    Raises:
        DataError: The folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (LAST, BEST):
            remove_partial(folder / name)
    except OSError as error:
        raise data_error(
            folder,
            received=f"a folder that can't be made or written to ({error.strerror})",
            expected="a folder for the checkpoints",
            remedy="Check its permissions or choose another folder.",
        ) from error


def checkpoint_to_resume(
    folder: Path,
    module: lightning.LightningModule,
    epochs: int,
    *,
    notify: Callable[[str], None],
    mend: bool = True,
) -> Path | None:
    """Return the checkpoint to resume from, or None if the folder holds no checkpoint.

    It returns `last.ckpt`. If `last.ckpt` is damaged, it keeps this file as `damaged.ckpt` and returns
    `previous.ckpt`, so that the last epoch is trained again. If `best.ckpt` does not agree with the
    checkpoint, e.g. after a kill between the two writes, it is written again.

    Args:
        folder: The folder of the checkpoints.
        module: The module to train. A checkpoint whose weights have other names or shapes is refused.
        epochs: The number of epochs of the whole training.
        notify: Called with a line for each file that was not used.
        mend: Whether to rename damaged files and to write `best.ckpt`; only one process should.

    Raises:
        DataError: The folder holds checkpoints, but no usable one.
        InvalidArgumentError: The checkpoint has finished more epochs than `epochs`.
    """
    reasons: dict[str, str] = {}
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            checkpoint = load_checkpoint(path)
            _check_fits(checkpoint, module)
        except UnusableCheckpointError as error:
            reasons[name] = str(error)
            continue
        except READING_ERRORS as error:
            reasons[name] = f"a checkpoint with other contents ({reason(error)})"
            continue
        finished = len(checkpoint["callbacks"]["History"]["records"])
        if finished > epochs:
            raise InvalidArgumentError(
                "epochs",
                received=f"{epochs}, but `{path}` holds a training of {finished} epochs",
                expected=f"at least {finished}",
                remedy="Ask for more epochs, or choose another folder.",
            )
        for damaged, fault in reasons.items():
            if mend:
                os.replace(folder / damaged, folder / DAMAGED)
            notify(
                f"`{folder / damaged}`: received {fault}; training resumes from `{name}`, after epoch "
                f"{finished}. The file is kept as `{DAMAGED}`."
            )
        if mend:
            _mend_best(folder, checkpoint["callbacks"][EpochCheckpoint.__name__]["best"], notify)
        return path
    if not reasons:
        return None
    raise data_error(
        folder,
        received="; ".join(f"as `{name}` {fault}" for name, fault in reasons.items()),
        expected="at least one whole checkpoint of an earlier run of these settings",
        remedy="Remove the run's folder to start again.",
    )


def _check_fits(checkpoint: Mapping[str, Any], module: lightning.LightningModule) -> None:
    """Raise if an undamaged checkpoint does not belong to this training."""
    for name, kind in _PARTS.items():
        if not isinstance(checkpoint.get(name), kind):
            raise UnusableCheckpointError(f"a file without `{name}`")
    if not (checkpoint["loops"] and checkpoint["optimizer_states"] and checkpoint["lr_schedulers"]):
        raise UnusableCheckpointError("a checkpoint without the state of the optimizer or of the loops")
    for callback, part in (("History", "records"), (EpochCheckpoint.__name__, "best")):
        if not checkpoint["callbacks"].get(callback, {}).get(part):
            raise UnusableCheckpointError("a checkpoint of another kind of training")
    best = checkpoint["callbacks"][EpochCheckpoint.__name__]["best"]
    if not {"epoch", "valid_loss", "state_dict"} <= best.keys():
        raise UnusableCheckpointError("a checkpoint without the weights of the best epoch")
    own = {name: value.shape for name, value in module.state_dict().items()}
    for weights in (checkpoint["state_dict"], best["state_dict"]):
        found = {name: getattr(value, "shape", None) for name, value in weights.items()}
        different = [name for name in {**own, **found} if own.get(name) != found.get(name)]
        if different:
            raise UnusableCheckpointError(f"a checkpoint of another network (its `{different[0]}` differs)")


def _mend_best(folder: Path, best: Mapping[str, Any], notify: Callable[[str], None]) -> None:
    path = folder / BEST
    try:
        if _same(load_checkpoint(path), best):
            return
    except UnusableCheckpointError as error:
        if path.exists():
            notify(f"`{path}`: received {error}; it is written again from the last checkpoint.")
    write_checkpoint(best, path)


def _same(found: Mapping[str, Any], best: Mapping[str, Any]) -> bool:
    weights, wanted = found["state_dict"], best["state_dict"]
    return (
        (found.get("epoch"), found.get("valid_loss")) == (best["epoch"], best["valid_loss"])
        and weights.keys() == wanted.keys()
        and all(torch.equal(weights[name], value) for name, value in wanted.items())
    )
