"""The settings of a training run: checked early, comparable, and with a readable name."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from eq_aimet.arguments import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_path,
    check_type,
)
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.experiments.training.devices import check_devices
from eq_aimet.models.architecture import LARGEST_GROUP, WIDEST

__all__ = ["Settings"]

_DEFAULT = "Leave it out to take the default."

_CHOICES: dict[str, tuple[str, ...]] = {
    "dataset": ("pcam", "rotated-mnist"),
    "architecture": ("mobilenet", "densenet"),
    "model": ("both", "conventional", "equivariant"),
    "depthwise": ("channel", "field"),
    "library": ("e2cnn", "escnn"),
    "weights": ("per-tensor", "per-channel"),
    "turns": ("quarter", "any"),
}
_COUNTS = ("epochs", "batch_size", "train_images", "valid_images", "test_images", "calibration_images")


@dataclass(frozen=True)
class Settings:
    """All values on which the result of a run depends. The constructor refuses an impossible value.

    Attributes:
        data: The data set: "synthetic", or the path of a folder or file.
        train_images: The number of training images to use.
        valid_images: The number of validation images to use.
        test_images: The number of test images to use.
        crop: The side of the images in pixels, an odd number from 33 to 95, or from 29 to 95 for digits. The
            networks see only the inscribed circle of an image. The central 32x32 square decides the label.
            The default 47 is the smallest side whose circle contains that square.
        model: "both", "conventional" or "equivariant".
        group: The number of rotations N of the group.
        width: The multiplier of the channel numbers.
        depthwise: "channel" or "field", the kind of MobileNetV2's equivariant depthwise layers.
        epochs: The number of passes over the training images.
        batch_size: The number of images in one training step.
        learning_rate: The highest learning rate of the schedule.
        weights: "per-tensor" or "per-channel", the ranges of the INT8 weights.
        calibration_images: The number of training images from which the INT8 activation ranges are measured.
        device: "cpu" or "cuda".
        precision: "32", "bf16" or "16", the floating-point format of the training.
        seed: The seed of the initial weights, of the order of the images and of the augmentation.
        dataset: "pcam", the layout of the files in `data`, or "rotated-mnist", the archive of digits.
        architecture: "mobilenet" or "densenet".
        reflections: Whether the group of the DenseNet also has reflections.
        devices: The number of GPUs, or of CPU processes, that train together on each node.
        nodes: The number of machines that train together.
        compile: Whether to train through `torch.compile`.
        turns: The random turns of the training images. "quarter" turns by multiples of 90°, which is exact.
            "any" turns by any angle, with interpolation. Patches are also mirrored at random; digits are not.
        library: "e2cnn" or "escnn", the library of the equivariant network.

    Raises:
        InvalidArgumentError: A setting has an impossible value.

    Example:
        >>> settings = Settings(train_images=64, valid_images=32, test_images=32, width=0.5, epochs=3)
        >>> settings.models
        ('conventional', 'equivariant')
        >>> settings.run_name
        'synthetic-64-32-32_crop47_both_c8-channel_width0.5_epochs3_batch32_lr0.005_per-tensor_seed0'
        >>> Settings(train_images=64, valid_images=32, test_images=32, width=0.0)
        Traceback (most recent call last):
            ...
        eq_aimet.errors.InvalidArgumentError: `width`: received 0.0; expected a number above 0 ...
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
    library: str = "e2cnn"

    def __post_init__(self) -> None:
        check_type("data", self.data, str, remedy="Give the path as a str.")
        check_path("data", self.data)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices, remedy=f'Try `{name}="{choices[0]}"`.')
        for name in _COUNTS:
            self._set(name, check_integer(name, getattr(self, name), remedy=_DEFAULT))
        self._set("group", check_integer("group", self.group, most=LARGEST_GROUP, remedy="Try `group=8`."))
        self._set("crop", _check_crop(self.crop, self.dataset))
        remedy = "Try `width=0.5`; the full network has `width=1`."
        self._set("width", check_number("width", self.width, most=WIDEST, remedy=remedy))
        remedy = "Try `learning_rate=0.005`."
        self._set("learning_rate", check_number("learning_rate", self.learning_rate, remedy=remedy))
        remedy = "Take 0, 1, 2, ..."
        self._set("seed", check_integer("seed", self.seed, least=0, most=2**63 - 1, remedy=remedy))
        for name in ("reflections", "compile"):
            check_flag(name, getattr(self, name))
        check_devices(self.device, self.devices, self.nodes, self.precision)

    def _set(self, name: str, value: float) -> None:
        """Store a number, already converted from numpy to a plain number so that JSON can hold it."""
        object.__setattr__(self, name, value)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models to train, in the table's order."""
        return _CHOICES["model"][1:] if self.model == "both" else (self.model,)

    @property
    def symmetry(self) -> str:
        """The name of the equivariant network's group: "C8" of a MobileNetV2, or "P4M" of a DenseNet."""
        if self.architecture == "densenet":
            return f"P{self.group}{'M' if self.reflections else ''}"
        return f"C{self.group}"

    @property
    def title(self) -> str:
        """The name of the networks in tables and plots."""
        name = "MobileNetV2" if self.architecture == "mobilenet" else "DenseNet"
        if self.model == "conventional":
            return name
        kind = ", field-wise" if self.architecture == "mobilenet" and self.depthwise == "field" else ""
        return f"{name} {self.symmetry}{kind}"

    @property
    def run_name(self) -> str:
        """A readable name for the results folder; equal settings have equal names."""
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
        if self.library != type(self).library:
            parts.append(self.library)
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


def _check_crop(crop: int, dataset: str) -> int:
    smallest, largest = (33 if dataset == "pcam" else 29), 95
    crop = check_integer("crop", crop, remedy="Try `crop=47`.")
    if crop % 2 and smallest <= crop <= largest:
        return crop
    raise InvalidArgumentError(
        "crop",
        received=crop,
        expected=f"an odd number from {smallest} to {largest}",
        remedy="Try `crop=47`, or `crop=95` for the whole image: an even grid breaks equivariance.",
    )
