"""The networks of the paper's table, built from the settings of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.settings import Settings

__all__ = ["CLASS_NAMES", "IMAGE_CHANNELS", "build_network", "check_network"]

CLASS_NAMES = {"pcam": ("no tumor", "tumor"), "rotated-mnist": tuple("0123456789")}
IMAGE_CHANNELS = {"pcam": 3, "rotated-mnist": 1}


def build_network(name: str, settings: Settings) -> torch.nn.Module:
    """Return a new network; the two networks of a run have the same layers.

    The two MobileNetV2s have the same channel counts. The two DenseNets have about the same number of
    weights.

    Args:
        name: "conventional" or "equivariant".
        settings: The settings of the run.

    Raises:
        InvalidArgumentError: There is no network of this width, group and input size.
    """
    from eq_aimet.models import DenseNet, EquivariantDenseNet, EquivariantMobileNetV2, MobileNetV2

    classes = len(CLASS_NAMES[settings.dataset])
    shared: dict[str, Any] = {
        "in_channels": IMAGE_CHANNELS[settings.dataset],
        "width": settings.width,
        "input_size": settings.crop,
    }
    if settings.architecture == "densenet":
        if name == "conventional":
            return DenseNet(classes, **shared)
        return EquivariantDenseNet(
            classes,
            group=settings.group,
            reflections=settings.reflections,
            library=settings.library,
            **shared,
        )
    if name == "conventional":
        return MobileNetV2(classes, divisor=settings.group, **shared)
    return EquivariantMobileNetV2(
        classes, group=settings.group, depthwise=settings.depthwise, library=settings.library, **shared
    )


def check_network(settings: Settings) -> None:
    """Check that the networks of these settings exist, without building them.

    Raises:
        InvalidArgumentError: There is no network of this width, group and input size.
    """
    from eq_aimet.models.architecture import plan_architecture

    if settings.architecture == "mobilenet":
        plan_architecture(width=settings.width, divisor=settings.group, input_size=settings.crop)
        return
    from eq_aimet.models.dense_architecture import plan_dense_architecture

    order = settings.group * (2 if settings.reflections else 1)
    for number in (order,) if settings.model == "equivariant" else (1, order):
        plan_dense_architecture(width=settings.width, order=number, input_size=settings.crop)
