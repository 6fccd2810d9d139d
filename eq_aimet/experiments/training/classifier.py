"""The training of an image classifier as a LightningModule."""

from __future__ import annotations

import math
from typing import Any

import lightning
import numpy as np
import torch
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from eq_aimet.arguments import check_integer, check_number, check_type
from eq_aimet.errors import InvalidArgumentError

__all__ = ["ImageClassifier", "one_cycle"]

Batch = tuple[torch.Tensor, torch.Tensor]

_WARM_UP = 0.2
_CHECKED_BATCHES = 50  # on a GPU, where reading the loss waits for the GPU


class ImageClassifier(lightning.LightningModule):
    """Trains a model on (image, label) batches by cross-entropy, AdamW and one cycle of the learning rate.

    It logs `train_loss`, `train_accuracy`, `valid_loss` and `valid_accuracy`, each over a whole epoch. The
    model's random numbers depend only on the seed, the epoch and the batch, so a resumed training equals an
    uninterrupted one. A loss that is not finite ends the training.

    Args:
        model: The network; it takes images, (batch, channels, H, W), and returns logits, (batch, classes).
        classes: The number of classes.
        learning_rate: The highest learning rate of the cycle.
        weight_decay: AdamW's weight decay, per unit of learning rate.
        seed: The seed of the model's random numbers, not negative.

    Example:
        >>> classifier = ImageClassifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)))
        >>> classifier(torch.zeros(5, 3, 2, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        classes: int = 2,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model = check_type("model", model, torch.nn.Module, remedy="Give the network to train.")
        classes = check_integer("classes", classes, least=2, remedy="Give the number of classes.")
        self.learning_rate = check_number("learning_rate", learning_rate, remedy="Try 0.005.")
        self.weight_decay = check_number("weight_decay", weight_decay, zero=True, remedy="Try 0.01.")
        self.seed = check_integer("seed", seed, least=0, remedy="Take 0, 1, 2, ...")
        self._are_images_finite = torch.tensor(True)
        # By default torchmetrics would ignore NaN in a mean.
        self.train_loss, self.valid_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.valid_accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, (batch, classes), of the images, (batch, channels, H, W)."""
        logits: torch.Tensor = self.model(images)
        return logits

    def on_train_epoch_start(self) -> None:
        """Forget whether the images of the last epoch were finite."""
        self._are_images_finite = torch.tensor(True)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the model's random numbers; each process of a distributed training gets another seed."""
        entropy = [self.seed, self.current_epoch, batch_idx]
        if self.global_rank:
            entropy.append(self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the batch's loss."""
        images, labels = batch
        self._look_at(images)
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        if loss.device.type == "cpu" or batch_idx % _CHECKED_BATCHES == 0:
            self._check_finite("training", loss)
        self.train_loss(loss.detach(), weight=len(labels))
        self.train_accuracy(logits.detach(), labels)
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the loss and the accuracy of the validation."""
        images, labels = batch
        self._look_at(images)
        logits = self(images)
        self.valid_loss(F.cross_entropy(logits, labels), weight=len(labels))
        self.valid_accuracy(logits, labels)
        self.log("valid_loss", self.valid_loss, on_step=False, on_epoch=True)
        self.log("valid_accuracy", self.valid_accuracy, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        """Raise if a loss is not finite; Lightning calls it before the checkpoints are saved."""
        for kind in ("train", "valid"):
            name = {"train": "training", "valid": "validation"}[kind]
            self._check_finite(name, self.trainer.callback_metrics[f"{kind}_loss"])

    def configure_optimizers(self) -> Any:
        """Return AdamW, and a schedule that changes the learning rate at each step."""
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _check_finite(self, kind: str, loss: torch.Tensor) -> None:
        if torch.isfinite(loss):
            return
        if not self._are_images_finite:
            raise InvalidArgumentError(
                "data",
                received=f"images with NaN or infinite values in epoch {self.current_epoch + 1}",
                expected="finite images",
                remedy="Look at the images, and at the function that augments them.",
            )
        half = "" if self.trainer.precision != "16-mixed" else ', or `precision="bf16"`'
        raise InvalidArgumentError(
            "learning_rate",
            received=f"{self.learning_rate:g}, with which the {kind} loss of epoch "
            f"{self.current_epoch + 1} became {float(loss.detach())}",
            expected="a learning rate with which the loss stays finite",
            remedy=f"Try `learning_rate={self.learning_rate / 10:g}`{half}.",
        )

    def _look_at(self, images: torch.Tensor) -> None:
        # This does not wait for a GPU.
        are_finite = torch.isfinite(images).all()
        self._are_images_finite = self._are_images_finite.to(images.device) & are_finite


def one_cycle(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step: it rises linearly, then falls as a cosine.

    After Smith and Topin, "Super-convergence", 2017; their rate falls linearly.

    Args:
        step: The number of the step, counted from 0.
        steps: The number of all steps.

    Example:
        >>> [round(one_cycle(step, 10), 2) for step in (0, 1, 2, 6, 9)]
        [0.33, 0.67, 1.0, 0.5, 0.04]
    """
    rise = int(_WARM_UP * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
