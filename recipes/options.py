"""The command-line options that the recipes share, and the settings of a run that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import get_console
from rich.markup import escape

from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments import Settings, check_network, count_images
from eq_aimet.experiments.training import is_first_process

DEFAULT_IMAGES = (3072, 512, 1024)  # of the synthetic set: train, valid, test
DEFAULT = Settings(*DEFAULT_IMAGES)

Data = Annotated[
    Path | None, typer.Option(help="Folder of PCam's HDF5 files. Left out, synthetic tissue is used.")
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch PCam, 8 GB, into the folder of --data first.")
]
TrainImages = Annotated[
    int | None, typer.Option(help=f"Training images; left out, all ({DEFAULT_IMAGES[0]} of the synthetic).")
]
ValidImages = Annotated[
    int | None, typer.Option(help=f"Validation images; left out, all ({DEFAULT_IMAGES[1]}).")
]
TestImages = Annotated[int | None, typer.Option(help=f"Test images; left out, all ({DEFAULT_IMAGES[2]}).")]
Crop = Annotated[
    int,
    typer.Option(
        help="Side of the images about their centre, odd: 47 holds what decides, 95 is the paper's."
    ),
]
Width = Annotated[float, typer.Option(help="Multiplier of the channel numbers; 1 is the full network.")]
Epochs = Annotated[int, typer.Option(help="How often each training image is seen.")]
Turns = Annotated[
    str, typer.Option(help="Random turns of training images: quarter (exact) or any (interpolated).")
]
BatchSize = Annotated[int, typer.Option(help="Images in a step.")]
LearningRate = Annotated[float, typer.Option(help="Highest learning rate of the one-cycle schedule.")]
Seed = Annotated[
    int, typer.Option(help="Of initial weights, order and augmentation; the data stay the same.")
]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Devices = Annotated[int, typer.Option(help="GPUs of each machine that train together.")]
Nodes = Annotated[int, typer.Option(help="Machines that train together.")]
Compile = Annotated[bool, typer.Option("--compile", help="Train through torch.compile.")]
Precision = Annotated[str, typer.Option(help="Bits of the training's arithmetic: 32, bf16 or 16.")]
Workers = Annotated[int, typer.Option(help="Processes that read images; 0 reads them in this one.")]
Weights = Annotated[str, typer.Option(help="Ranges of the INT8 weights: per-tensor or per-channel.")]
CalibrationImages = Annotated[
    int, typer.Option(help="Training images from which the activations' ranges are taken.")
]
Results = Annotated[Path, typer.Option(help="Folder under which each run makes its own.")]


def read_settings(
    data: Path | None, limits: tuple[int | None, int | None, int | None], **choices: Any
) -> Settings:
    """Return the settings that the options say; limits that were left out are the synthetic set's."""
    images = [
        default if count is None else count for count, default in zip(limits, DEFAULT_IMAGES, strict=True)
    ]
    return Settings(
        *images, data="synthetic" if data is None else str(data.expanduser().resolve()), **choices
    )


def prepare(
    runs: Sequence[Settings],
    data: Path | None,
    limits: tuple[int | None, int | None, int | None],
    *,
    workers: int,
    download: bool,
) -> list[Settings]:
    """Return the runs with the numbers of images there are, after refusing what can't be, and fetching PCam.

    What is refused is refused before anything is fetched.
    """
    if workers < 0:
        raise InvalidArgumentError(
            "--workers",
            received=workers,
            expected="an integer of at least 0",
            remedy="Leave it out to take 0.",
        )
    for settings in runs:
        check_network(settings)
    if download:
        fetch(data)
    return list(runs) if data is None else [count_images(settings, limits) for settings in runs]


def fetch(folder: Path | None) -> None:
    """Fetch PCam into the folder; what is there already and whole is kept."""
    from eq_aimet.experiments.data import download_pcam

    if folder is None:
        raise InvalidArgumentError(
            "--download",
            received="no --data",
            expected="the folder to put PCam's files into",
            remedy="Add --data pcam, for instance.",
        )
    if is_first_process():  # of several GPUs
        download_pcam(folder, on_notice=lambda notice: say(escape(notice)))


def say(text: str) -> None:
    """Print a line, above the progress bar if there is one."""
    get_console().print(text, highlight=False, soft_wrap=True)
