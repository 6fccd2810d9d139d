"""The command line that the recipes share: its options, the run that they request, and its errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import get_console
from rich.markup import escape

from eq_aimet.arguments import check_integer
from eq_aimet.errors import EqAimetError, InvalidArgumentError
from eq_aimet.experiments import Settings, check_network, count_images
from eq_aimet.experiments.training import is_first_process

DEFAULT_IMAGES = {"train_images": 3072, "valid_images": 512, "test_images": 1024}  # of the synthetic images
DEFAULTS = {
    **{field.name: field.default for field in fields(Settings)},
    "data": None,
    **dict.fromkeys(DEFAULT_IMAGES),
    "download": False,
    "workers": 0,
    "results": Path("results"),
    "resume": False,
}


_TEXTS: dict[str, tuple[Any, str]] = {
    # --- data ---
    "data": (Path | None, "Folder with PCam's HDF5 files; without it, synthetic tissue is drawn."),
    "download": (bool, "First fetch PCam, 8 GB, into the folder of --data."),
    "train_images": (int | None, "Number of training images; by default all, or 3072 synthetic ones."),
    "valid_images": (int | None, "Number of validation images; by default all, or 512 synthetic ones."),
    "test_images": (int | None, "Number of test images; by default all, or 1024 synthetic ones."),
    "crop": (int, "Side of the images about their centre in pixels, odd: 47 is fast, 95 is the paper's."),
    # --- models ---
    "model": (str, "The networks: both, conventional or equivariant."),
    "architecture": (str, "The architecture: mobilenet or densenet."),
    "group": (int, "N of the rotation group C_N; the paper has 4 and 8."),
    "reflections": (bool, "Add reflections to the group of a densenet: --group 4 becomes P4M."),
    "width": (float, "Multiplier of the channel numbers; 1 is the full network."),
    "depthwise": (str, "Depthwise layers: channel (as fast as conventional ones) or field (e2cnn's own)."),
    "library": (str, "Library of the equivariant network: e2cnn or escnn."),
    # --- training ---
    "epochs": (int, "How often the training sees each image."),
    "turns": (str, "Random turns of the training images: quarter (exact) or any (interpolated)."),
    "batch_size": (int, "Number of images in a step."),
    "learning_rate": (float, "Highest learning rate of the one-cycle schedule."),
    "seed": (int, "Seed of the initial weights, the order and the augmentation."),
    "device": (str, "Where to train: cpu or cuda."),
    "devices": (int, "Number of GPUs of each machine that train together."),
    "nodes": (int, "Number of machines that train together."),
    "compile": (bool, "Train through torch.compile."),
    "precision": (str, "Bits of the training's arithmetic: 32, bf16 or 16."),
    "workers": (int, "Number of processes that read images; 0 reads them in the training's own process."),
    # --- INT8 ---
    "weights": (str, "Ranges of the INT8 weights: per-tensor or per-channel."),
    "calibration_images": (int, "Number of training images that give the ranges of the activations."),
    # --- run ---
    "results": (Path, "Folder in which each run makes a folder of its own."),
    "resume": (bool, "Go on with an earlier run of the same settings."),
}


def option_name(argument: str) -> str:
    """Return the option of an argument: for `batch_size`, return `--batch-size`."""
    return f"--{argument.replace('_', '-')}"


_KEYWORD = inspect.Parameter.KEYWORD_ONLY
OPTIONS = {
    name: Annotated[kind, typer.Option(option_name(name), help=text)] for name, (kind, text) in _TEXTS.items()
}
Width, Device, Results = (OPTIONS[name] for name in ("width", "device", "results"))


@dataclass(frozen=True)
class Request:
    """The run that a command line requests.

    Attributes:
        settings: The settings of the run.
        data: The folder of the data, or None for synthetic tissue.
        limits: The numbers of training, validation and test images, or None for all.
        download: Whether to fetch PCam first.
        workers: The number of processes that read images.
        results: The folder of all runs.
        resume: Whether to continue an earlier run.
    """

    settings: Settings
    data: Path | None
    limits: tuple[int | None, int | None, int | None]
    download: bool
    workers: int
    results: Path
    resume: bool = False

    @classmethod
    def of(cls, values: dict[str, Any]) -> Request:
        """Return the request for the options' values; an omitted option has its default."""
        own = {
            name: values.pop(name) for name in ("download", "workers", "results", "resume") if name in values
        }
        data = values.pop("data", None)
        limits = tuple(values.pop(name, None) for name in DEFAULT_IMAGES)
        counts = [
            default if limit is None else limit
            for limit, default in zip(limits, DEFAULT_IMAGES.values(), strict=True)
        ]
        place = "synthetic" if data is None else str(data.expanduser().resolve())
        return cls(Settings(*counts, data=place, **values), data, limits, **own)

    def prepare(self, runs: Sequence[Settings]) -> list[Settings]:
        """Return the runs with the numbers of images that the data contain.

        First, the method raises an error for an impossible setting. Then it fetches PCam if `download` is
        set.
        """
        check_integer("workers", self.workers, least=0, remedy="Leave it out to take 0.")
        for settings in runs:
            check_network(settings)
        if self.download:
            _fetch(self.data)
        return list(runs) if self.data is None else [count_images(each, self.limits) for each in runs]


def command(
    *, interrupted: Callable[[], str], leave_out: Collection[str] = ()
) -> Callable[[Callable[[Request], object]], Callable[..., None]]:
    """Return a decorator that turns a function of a `Request` into a command.

    Args:
        interrupted: A function that returns the text to print after Ctrl-C.
        leave_out: The options that the command does not have.
    """

    def decorate(main: Callable[[Request], object]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            with clear_errors(interrupted):
                main(Request.of(values))

        run.__doc__ = main.__doc__
        run.__annotations__ = {}
        shown = {name: kind for name, kind in OPTIONS.items() if name not in leave_out}
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(name, _KEYWORD, default=DEFAULTS[name], annotation=kind)
                for name, kind in shown.items()
            ]
        )
        return run

    return decorate


def start(main: Callable[..., None]) -> None:
    """Run a command with the arguments of the command line."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()


@contextmanager
def clear_errors(interrupted: Callable[[], str]) -> Iterator[None]:
    """End the program with a short text on stderr if the block raises an EqAimetError or on Ctrl-C."""
    try:
        yield
    except EqAimetError as error:
        typer.echo(f"Error: {as_options(str(error))}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(f"\nInterrupted. {interrupted()}", err=True)
        raise typer.Exit(130) from None


_ARGUMENT = re.compile(r"`(\w+)(?:=([^`]*))?`")
_NAMES = {name: option_name(name) for name in (*OPTIONS, "only", "seeds")} | {"path": "--results"}


def as_options(text: str) -> str:
    """Return an error's text with the options of the command line in place of the library's arguments.

    `batch_size=4` becomes `--batch-size 4`, and `resume=True` becomes `--resume`.
    """

    def replace(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in _NAMES:
            return match[0]
        if value is None or value == "True":
            return f"`{_NAMES[name]}`"
        return f"`{_NAMES[name]} {value.strip(chr(34))}`"

    return _ARGUMENT.sub(replace, text)


def say(text: str) -> None:
    """Print a line; a progress bar stays below it."""
    get_console().print(text, highlight=False, soft_wrap=True)


def _fetch(folder: Path | None) -> None:
    """Fetch PCam into the folder, and keep complete files that the folder already contains."""
    from eq_aimet.experiments.data import download_pcam

    if folder is None:
        raise InvalidArgumentError(
            "download",
            received="no `data`",
            expected="the folder to put PCam's files into",
            remedy="Add `data=pcam`, for example.",
        )
    if is_first_process():  # one process per GPU; only the first one fetches
        download_pcam(folder, on_notice=lambda notice: say(escape(notice)))
