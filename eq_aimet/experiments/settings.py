"""The settings of a training run: checked early, comparable, and with a readable name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.errors import InvalidArgumentError

__all__ = ["Settings"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "dataset": ("pcam", "rotated-mnist"),
    "architecture": ("mobilenet", "densenet"),
    "model": ("both", "conventional", "equivariant"),
    "depthwise": ("channel", "field"),
    "weights": ("per-tensor", "per-channel"),
    "device": ("cpu", "cuda"),
    "precision": ("32", "bf16", "16"),
    "turns": ("quarter", "any"),
}
_COUNTS = (
    "group",
    "epochs",
    "batch_size",
    "train_images",
    "valid_images",
    "test_images",
    "calibration_images",
    "devices",
    "nodes",
)


@dataclass(frozen=True)
class Settings:
    """All that the result of a run depends on. What is not possible raises on construction.

    The messages name an argument as the command line does: `batch_size` is `--batch-size`.

    Attributes:
        data: What names the data set: "synthetic", or the path of a folder or file.
        train_images: How many training images to use.
        valid_images: How many validation images to use.
        test_images: How many test images to use.
        crop: The side of the images in pixels, odd and within 33..95; for digits from 29 on. The default, 47,
            is the smallest whose inscribed circle, all that the networks see, holds the central 32x32 square
            that decides the label.
        model: "both", "conventional" or "equivariant".
        group: The number of rotations N of the group.
        width: The multiplier of the channel numbers.
        depthwise: "channel" or "field", the kind of MobileNetV2's equivariant depthwise layers.
        epochs: How often each training image is seen.
        batch_size: How many images a step sees.
        learning_rate: The schedule's highest learning rate.
        weights: "per-tensor" or "per-channel", the ranges of the INT8 weights.
        calibration_images: How many training images the ranges of the INT8 activations are taken from.
        device: "cpu" or "cuda".
        precision: "32", "bf16" or "16", the bits of the training's arithmetic.
        seed: Of the initial weights, the order of the images and the augmentation.
        dataset: "pcam", the layout of the files in `data`, or "rotated-mnist", the archive of digits in it.
        architecture: "mobilenet" or "densenet".
        reflections: Whether DenseNet's group has reflections, too.
        devices: How many GPUs, or processes on a CPU, train together on each node.
        nodes: How many machines train together.
        compile: Whether to train through `torch.compile`.
        turns: The random turns of the training images: "quarter", by multiples of 90° and exact, or "any", by
            any angle and interpolated. Patches are mirrored at random, too, digits are not.

    Raises:
        InvalidArgumentError: A setting is not possible.

    Example:
        >>> settings = Settings(train_images=64, valid_images=32, test_images=32, width=0.5, epochs=3)
        >>> settings.models
        ('conventional', 'equivariant')
        >>> settings.run_name
        'synthetic-64-32-32_crop47_both_c8-channel_width0.5_epochs3_batch32_lr0.005_per-tensor_seed0'
        >>> Settings(train_images=64, valid_images=32, test_images=32, width=0.0)
        Traceback (most recent call last):
            ...
        eq_aimet.errors.InvalidArgumentError: `--width`: received 0.0; expected a number above 0. ...
    """

    train_images: int
    valid_images: int
    test_images: int
    data: str = "synthetic"
    crop: int = 47
    model: str = "both"
    group: int = 8
    width: float = 0.5
    depthwise: str = "channel"
    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 5e-3
    weights: str = "per-tensor"
    calibration_images: int = 256
    device: str = "cpu"
    precision: str = "32"
    seed: int = 0
    dataset: str = "pcam"
    architecture: str = "mobilenet"
    reflections: bool = False
    devices: int = 1
    nodes: int = 1
    compile: bool = False
    turns: str = "quarter"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in _COUNTS:
            _check_count(name, getattr(self, name))
        smallest = 33 if self.dataset == "pcam" else 29
        if self.crop % 2 == 0 or not smallest <= self.crop <= 95:
            raise InvalidArgumentError(
                _option("crop"),
                received=self.crop,
                expected=f"an odd number from {smallest} to 95",
                remedy="Try 47, or 95 for the whole image: an even grid breaks equivariance.",
            )
        _check_positive("width", self.width, "Try 0.5; 1.0 is the full MobileNetV2.")
        _check_positive("learning_rate", self.learning_rate, "Try 0.005.")
        if not 0 <= self.seed < 2**63:
            raise InvalidArgumentError(
                _option("seed"),
                received=self.seed,
                expected="an integer from 0 to 2**63 - 1",
                remedy="Take 0, 1, 2, ...",
            )
        if self.precision == "16" and self.device != "cuda":
            raise InvalidArgumentError(
                _option("precision"),
                received=f"16 with --device {self.device}",
                expected="16 on a CUDA device only",
                remedy="Take --precision 32 or bf16, or --device cuda.",
            )
        if self.device == "cuda":
            _check_cuda()

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models to train, in the table's order."""
        return _CHOICES["model"][1:] if self.model == "both" else (self.model,)

    @property
    def symmetry(self) -> str:
        """The name of the equivariant network's group: "C8", or "P4M" as the DenseNets' authors say."""
        if self.architecture == "densenet":
            return f"P{self.group}{'M' if self.reflections else ''}"
        return f"C{self.group}"

    @property
    def title(self) -> str:
        """What the networks are called in tables and plots."""
        name = "MobileNetV2" if self.architecture == "mobilenet" else "DenseNet"
        if self.model == "conventional":
            return name
        kind = ", field-wise" if self.architecture == "mobilenet" and self.depthwise == "field" else ""
        return f"{name} {self.symmetry}{kind}"

    @property
    def run_name(self) -> str:
        """A readable name for the results folder, the same for the same settings."""
        data = self.data.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or "data"
        kind = f"-{self.depthwise}" if self.architecture == "mobilenet" else ""
        group = f"{self.symmetry.lower()}{kind}"
        parts = [
            f"{data}-{self.train_images}-{self.valid_images}-{self.test_images}",
            f"crop{self.crop}",
            self.model,
            group,
            f"width{self.width:g}",
            f"epochs{self.epochs}",
            f"batch{self.batch_size}",
            f"lr{self.learning_rate:g}",
            self.weights,
            f"seed{self.seed}",
        ]
        if self.architecture != type(self).architecture:
            parts.insert(2, self.architecture)
        if self.turns != type(self).turns:
            parts.append(f"turns-{self.turns}")
        if self.calibration_images != type(self).calibration_images:
            parts.append(f"calibration{self.calibration_images}")
        if self.device != "cpu":
            parts.append(self.device)
        if self.precision != "32":
            parts.append(self.precision if self.precision == "bf16" else f"fp{self.precision}")
        if (self.devices, self.nodes) != (1, 1):
            parts.append(f"{self.nodes}x{self.devices}")
        if self.compile:
            parts.append("compiled")
        return "_".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values for JSON."""
        return asdict(self)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidArgumentError(
            _option(name),
            received=repr(value),
            expected=f"one of {', '.join(choices)}",
            remedy=f"Try {_option(name)} {choices[0]}.",
        )


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise InvalidArgumentError(
            _option(name),
            received=value,
            expected="an integer of at least 1",
            remedy="Leave it out to take the default.",
        )


def _check_positive(name: str, value: float, remedy: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidArgumentError(_option(name), received=value, expected="a number above 0", remedy=remedy)


def _check_cuda() -> None:
    import torch  # two seconds, which only those who ask for a GPU should wait

    if not torch.cuda.is_available():
        raise InvalidArgumentError(
            _option("device"),
            received="'cuda', and torch finds no CUDA device",
            expected="a machine with an NVIDIA GPU and a CUDA build of torch",
            remedy="Leave it out to train on the CPU.",
        )
