"""What the equivariant networks are made of: convolution, batch norm and ReLU, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from eq_aimet.adapters.e2cnn import build_batch_norm, build_convolution, enn, keep_weights_only

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EquivariantNetwork", "convolve"]


class EquivariantNetwork(torch.nn.Module):
    """A network of e2cnn modules that ends in group pooling, global pooling and a linear classifier.

    Its state dict holds the weights only and loads in training and in eval mode, whichever it was saved in.
    """

    def _append_classifier(self, in_type: enn.FieldType, num_classes: int) -> None:
        """Add the network's end, after all that comes before it."""
        self.group_pool = enn.GroupPooling(in_type)
        self.pool = enn.PointwiseAdaptiveAvgPool(self.group_pool.out_type, 1)
        self.classifier = torch.nn.Linear(len(in_type), num_classes)
        torch.nn.init.normal_(self.classifier.weight, std=0.01)
        torch.nn.init.zeros_(self.classifier.bias)
        keep_weights_only(self)

    def _classify(self, fields: enn.GeometricTensor) -> torch.Tensor:
        """Return the logits, (B, num_classes), of regular fields (B, channels, H, W)."""
        logits: torch.Tensor = self.classifier(self.pool(self.group_pool(fields)).tensor.flatten(1))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Switch the mode in place, and return the network, as torch's `train` does.

        Filters made for eval mode carry no gradient history, so that the network can be deep-copied.
        """
        with torch.set_grad_enabled(mode and torch.is_grad_enabled()):
            return super().train(mode)


def convolve(
    in_type: enn.FieldType, out_type: enn.FieldType, kernel_size: int, **options: Any
) -> list[enn.EquivariantModule]:
    """Return convolution, batch norm and ReLU; the options are `build_convolution`'s."""
    return [
        build_convolution(in_type, out_type, kernel_size, bias=False, **options),
        build_batch_norm(out_type),
        enn.ReLU(out_type),
    ]
