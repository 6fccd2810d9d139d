"""The layers of the equivariant networks: convolution, batch norm and ReLU, and the final classifier."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from eq_aimet.adapters.libraries import load_adapter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EquivariantNetwork", "convolve"]


class EquivariantNetwork(torch.nn.Module):
    """A network of e2cnn or escnn modules that ends in group pooling, global pooling and a linear classifier.

    Its state dict holds only the weights. Save it in training or eval mode, and load it in either mode.
    """

    def __init__(self, library: str) -> None:
        super().__init__()
        self.library = library
        self._tensor_class = load_adapter(library).enn.GeometricTensor

    def _append_classifier(self, in_type: Any, num_classes: int) -> None:
        """Add group pooling, global pooling and classifier; call this after all other layers exist."""
        adapter = load_adapter(self.library)
        enn = adapter.enn
        self.group_pool = enn.GroupPooling(in_type)
        self.pool = enn.PointwiseAdaptiveAvgPool(self.group_pool.out_type, 1)
        self.classifier = torch.nn.Linear(len(in_type), num_classes)
        torch.nn.init.normal_(self.classifier.weight, std=0.01)
        torch.nn.init.zeros_(self.classifier.bias)
        adapter.keep_weights_only(self)

    def _classify(self, fields: Any) -> torch.Tensor:
        """Return the logits, (B, num_classes), of regular fields (B, channels, H, W)."""
        logits: torch.Tensor = self.classifier(self.pool(self.group_pool(fields)).tensor.flatten(1))
        return logits

    def train(self, mode: bool = True) -> Self:
        """Switch the mode in place and return the network, as torch's `train` does.

        The filters for eval mode carry no gradient history, so that a user can deep-copy the network.
        """
        with torch.set_grad_enabled(mode and torch.is_grad_enabled()):
            return super().train(mode)


def convolve(
    adapter: ModuleType, in_type: Any, out_type: Any, kernel_size: int, **options: Any
) -> list[torch.nn.Module]:
    """Return a convolution, a batch norm and a ReLU of a library.

    Args:
        adapter: The adapter of the library.
        in_type: The field type of the input.
        out_type: The field type of the output.
        kernel_size: The side of the filter in pixels.
        **options: Further arguments of `build_convolution`.
    """
    return [
        adapter.build_convolution(in_type, out_type, kernel_size, bias=False, **options),
        adapter.build_batch_norm(out_type),
        adapter.enn.ReLU(out_type),
    ]
