"""Bilinear upsampling as a constant convolution, which devices compute in integers."""

from __future__ import annotations

import torch

from eq_aimet.errors import InvalidArgumentError

__all__ = ["BilinearUpsampling"]


class BilinearUpsampling(torch.nn.Module):
    """Bilinear upsampling by a whole factor k, as torch's `interpolate` computes it.

    Each input pixel becomes k×k output pixels, and each of them is a fixed mean of the 3×3 pixels around the
    input pixel. So a depthwise convolution with k² outputs for each channel computes all output pixels, and a
    pixel shuffle puts them in place. Runtimes add up the products of this convolution in integers. They
    compute a `Resize` in floats, and a turn of the image may change the last bits of its output.

    Args:
        channels: The number of channels.
        factor: k, at least 2.
        align_corners: Whether the corners of input and output coincide. The output then has (n − 1)·k + 1
            pixels for n pixels of the input, otherwise n·k.
        output_size: The required height and width of the output. An input that upsamples to another size
            raises an error. If it is left out, the output may have any size.
        dtype: The dtype of the weights; torch's default if left out.

    Example:
        >>> BilinearUpsampling(1, 2)(torch.tensor([[[[0.0, 4.0]]]]))
        tensor([[[[0., 1., 3., 4.],
                  [0., 1., 3., 4.]]]])
    """

    def __init__(
        self,
        channels: int,
        factor: int,
        align_corners: bool = False,
        *,
        output_size: tuple[int, int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if factor < 2:
            raise InvalidArgumentError(
                "factor",
                received=factor,
                expected="a whole number from 2 on",
                remedy="Leave out an upsampling by 1; downsample by a pooling.",
            )
        self.factor, self.align_corners, self.output_size = factor, align_corners, output_size
        self.pad = torch.nn.ReplicationPad2d(1)
        self.convolution = torch.nn.Conv2d(
            channels, channels * factor**2, 3, groups=channels, bias=False, dtype=dtype
        )
        self.shuffle = torch.nn.PixelShuffle(factor)
        taps = _taps(factor, align_corners)
        kernels = torch.einsum("ai,bj->abij", taps, taps).reshape(factor**2, 1, 3, 3)
        with torch.no_grad():
            self.convolution.weight.copy_(kernels.repeat(channels, 1, 1, 1))
        self.convolution.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the upsampled image, (batch, channels, larger height, larger width)."""
        y: torch.Tensor = self.shuffle(self.convolution(self.pad(x)))
        if self.align_corners:
            y = y[:, :, : 1 - self.factor, : 1 - self.factor]  # behind the last pixel of the input
        size = self.output_size
        if size is not None and not torch._C._get_tracing_state() and y.shape[2:] != size:
            raise InvalidArgumentError(
                "x",
                received=f"a grid of {x.shape[2]}×{x.shape[3]} pixels, which upsamples to "
                f"{y.shape[2]}×{y.shape[3]}",
                expected=f"a grid that upsamples by {self.factor} to {size[0]}×{size[1]} pixels",
                remedy="Export the model again with images of this size.",
            )
        return y

    def extra_repr(self) -> str:
        """Return the arguments for the module's string form."""
        return f"factor={self.factor}, align_corners={self.align_corners}"


def _taps(factor: int, align_corners: bool) -> torch.Tensor:
    """Return the weights of the pixels before, at and behind the input pixel, of shape (factor, 3)."""
    places = torch.arange(factor, dtype=torch.float64)
    # The offset of each output pixel from the centre of its input pixel, in input pixels.
    offsets = places / factor if align_corners else (2 * places + 1 - factor) / (2 * factor)
    return torch.stack(((-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)), 1)
