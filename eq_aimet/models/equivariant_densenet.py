"""DenseNet that is equivariant to quarter turns and mirrorings, in e2cnn or escnn."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from eq_aimet.adapters.libraries import load_adapter
from eq_aimet.arguments import check_integer
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.models.dense_architecture import DenseBlockPlan, plan_dense_architecture
from eq_aimet.models.equivariant_layers import EquivariantNetwork, convolve
from eq_aimet.models.network_input import check_input

__all__ = ["EquivariantDenseBlock", "EquivariantDenseNet"]

GROUPS = (1, 2, 4)
# A 3×3 filter has 8 pixels around its centre. Those pixels can represent frequencies up to 4.
HIGHEST_FREQUENCY = 4


class EquivariantDenseBlock(torch.nn.Module):
    """A transition (pooling and 1×1 convolution), then a 3×3 convolution whose output joins its input.

    Args:
        gspace: The symmetry.
        plan: The field counts, and the window of the transition's pooling.
    """

    def __init__(self, adapter: ModuleType, gspace: Any, plan: DenseBlockPlan) -> None:
        super().__init__()
        enn = adapter.enn
        in_type = _regular_type(adapter, gspace, plan.in_fields)
        transition: list[torch.nn.Module] = []
        if plan.window:
            transition = [
                enn.PointwiseAvgPool(in_type, plan.window, stride=2),
                *_convolve(adapter, in_type, in_type, 1),
            ]
        self.transition = torch.nn.Sequential(*transition)
        self.layer = enn.SequentialModule(
            *_convolve(adapter, in_type, _regular_type(adapter, gspace, plan.growth), 3)
        )
        self.out_type = _regular_type(adapter, gspace, plan.out_fields)

    def forward(self, x: Any) -> Any:
        """Return the transition's output and the added fields, (B, out_fields · |G|, H / 2, W / 2)."""
        x = self.transition(x)
        # tensor_directsum of both libraries would rebuild the type field by field in each call.
        return type(x)(torch.cat([x.tensor, self.layer(x).tensor], 1), self.out_type)


class EquivariantDenseNet(EquivariantNetwork):
    """The DenseNet of Veeling et al. 2018, whose logits don't change when the image turns.

    With `group=4` and `reflections=True`, it is the P4M-DenseNet of Veeling et al. With `group=4` and
    `reflections=False`, it is their P4-DenseNet. `DenseNet` is the conventional counterpart. A layer has
    26/√|G| fields, so that the three networks have about the same number of weights: 123,185 (P4M, 9 fields
    of 8 channels), 128,793 (P4, 13 fields of 4 channels) and 129,820 (conventional, 26 channels). The 3×3
    filters have all nine degrees of freedom per pair of channels, as in the group convolutions of Cohen &
    Welling 2016. The default frequencies of e2cnn leave only six degrees of freedom.

    The network starts with a 3×3 convolution. Five dense blocks follow, each with one 3×3 convolution. A
    dense block outputs the fields that it reads and the fields that it adds. Between two blocks, a transition
    halves the grid by average pooling and a 1×1 convolution. After the last block, group pooling precedes the
    global pooling. Group pooling makes the network invariant, exactly for all elements of the group. The
    network differs from Veeling's in four ways:

    - Batch norm and ReLU follow each convolution instead of preceding it. A batch norm therefore folds into
      its convolution, scales move across each ReLU and concatenation, and the device does not normalize.
    - A transition pools before its 1×1 convolution. Pooling and 1×1 convolution commute, and this order needs
      a fourth of the work.
    - Convolutions pad with zeros. Images smaller than Veeling's 96×96 pixels therefore work, and no feature
      map is cropped before a concatenation.
    - Pooling windows are 2×2 on an even grid and 3×3 on an odd grid, which keeps pooling equivariant at each
      size. The inscribed circle masks the input, as in `EquivariantMobileNetV2`.

    A state dict holds only the weights. Save it in training or eval mode, and load it in either mode.

    Args:
        num_classes: The number of logits.
        in_channels: The channels of the input. All are scalar, as colours are.
        width: The multiplier of the field counts.
        group: N of the rotations by 360°/N: 1, 2 or 4.
        reflections: Whether the group contains mirrorings. With mirrorings, its order |G| is 2N.
        input_size: The side of the square input in pixels.
        library: The library of the layers, "e2cnn" or "escnn".

    Raises:
        InvalidArgumentError: If a count is below 1, if `group` or `library` is another value, if a layer
            would have less than one field, or if `input_size` is too small; in `forward`, if `x` has another
            shape.

    Example:
        >>> net = EquivariantDenseNet(num_classes=2, width=0.25, input_size=33).eval().double()
        >>> x = torch.rand(1, 3, 33, 33, dtype=torch.float64)
        >>> torch.allclose(net(x), net(x.rot90(1, (2, 3)).flip(3)), rtol=1e-10, atol=0.0)
        True
    """

    def __init__(
        self,
        num_classes: int = 2,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        group: int = 4,
        reflections: bool = True,
        input_size: int = 95,
        library: str = "e2cnn",
    ) -> None:
        super().__init__(library)
        check_integer("num_classes", num_classes, remedy="Give the number of classes.")
        check_integer("in_channels", in_channels, remedy="Give the number of the input's channels.")
        _check_group(group, reflections)
        adapter = load_adapter(library)
        enn, gspace = adapter.enn, adapter.planar_space(group, reflections)
        plan = plan_dense_architecture(width=width, order=gspace.regular_repr.size, input_size=input_size)
        self.in_channels, self.input_size = in_channels, input_size
        self.in_type = enn.FieldType(gspace, in_channels * [gspace.trivial_repr])
        self.input_mask = adapter.CircularMask(self.in_type, input_size)
        self.stem = enn.SequentialModule(
            *_convolve(adapter, self.in_type, _regular_type(adapter, gspace, plan.stem_fields), 3)
        )
        self.blocks = torch.nn.Sequential(
            *(EquivariantDenseBlock(adapter, gspace, block) for block in plan.blocks)
        )
        self._append_classifier(_regular_type(adapter, gspace, plan.out_fields), num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits, (B, num_classes), of images (B, in_channels, input_size, input_size)."""
        check_input(x, self.in_channels, self.input_size)
        fields = self.input_mask(self._tensor_class(x, self.in_type))
        return self._classify(self.blocks(self.stem(fields)))


def _check_group(group: int, reflections: bool) -> None:
    if isinstance(group, bool) or group not in GROUPS:
        raise InvalidArgumentError(
            "group",
            received=repr(group),
            expected="1, 2 or 4: turns by which 3×3 filters stay on their pixels",
            remedy="Take EquivariantMobileNetV2 for finer rotations.",
        )
    if not isinstance(reflections, bool):
        raise InvalidArgumentError(
            "reflections",
            received=repr(reflections),
            expected="True or False",
            remedy="Take True where images have no handedness, as tissue has none.",
        )


def _regular_type(adapter: ModuleType, gspace: Any, fields: int) -> Any:
    """Return the type of `fields` regular fields."""
    return adapter.enn.FieldType(gspace, fields * [gspace.regular_repr])


def _convolve(adapter: ModuleType, in_type: Any, out_type: Any, kernel_size: int) -> list[torch.nn.Module]:
    """Return a convolution with all degrees of freedom of a filter, a batch norm and a ReLU."""
    return convolve(
        adapter,
        in_type,
        out_type,
        kernel_size,
        padding=kernel_size // 2,
        frequencies_cutoff=float(HIGHEST_FREQUENCY),  # times the radius: 0 for 1×1 filters
        basis_filter=_is_distinct,
    )


def _is_distinct(element: dict[str, Any]) -> bool:
    """Return whether a basis element of e2cnn differs on 3×3 pixels from the elements before it.

    On 3×3 pixels, frequency −4 equals frequency 4. escnn counts both frequencies as one element.
    """
    return bool(element.get("frequency") != -HIGHEST_FREQUENCY)
