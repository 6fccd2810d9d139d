"""The runtime's integer arithmetic in numpy: the results of quantized operators, bit for bit.

Integer sums are exact, so their order does not matter. Only the conversion of the sum to the output's scale
must follow the runtime. onnxruntime's kernels multiply the sum by one float32 factor, round to nearest even,
add the zero point and clamp. The float32 operations below are the operations of its kernels on x86 with AVX2
and FMA. A comparison of all pairs of inputs under random scales identified them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = [
    "Quantization",
    "add",
    "convolve",
    "dequantize",
    "global_average",
    "matrix_product",
    "quantize",
    "requantize",
]

Integers = np.ndarray


class Quantization:
    """Scale and zero point of a quantized tensor, one for the whole tensor or one per output channel.

    Args:
        scale: Of float32, a scalar or of shape (channels,).
        zero_point: Of the tensor's integer type.
    """

    def __init__(self, scale: np.ndarray, zero_point: np.ndarray) -> None:
        self.scale = np.asarray(scale, np.float32)
        self.zero_point = np.asarray(zero_point)
        self.range = np.iinfo(self.zero_point.dtype)

    def centred(self, integers: Integers) -> np.ndarray:
        """Return integers minus zero point as int64; several zero points belong to the first axis."""
        zero = self.zero_point.astype(np.int64)
        if zero.size > 1:
            zero = zero.reshape(-1, *[1] * (integers.ndim - 1))
        return integers.astype(np.int64) - zero


def quantize(values: np.ndarray, of_y: Quantization) -> Integers:
    """Return floats as integers: divided by the scale, rounded to nearest even, clamped."""
    rounded = np.rint(values.astype(np.float32) / of_y.scale) + np.float32(of_y.zero_point)
    integers: Integers = np.clip(rounded, of_y.range.min, of_y.range.max).astype(of_y.range.dtype)
    return integers


def dequantize(integers: Integers, of_x: Quantization, axis: int = 0) -> np.ndarray:
    """Return integers as float32; with one scale per channel, `axis` is the axis of the channels."""
    shape = [1] * integers.ndim
    if of_x.scale.size > 1:
        shape[axis] = -1
    zero = of_x.zero_point.astype(np.int64).reshape(shape)
    return (integers.astype(np.int64) - zero).astype(np.float32) * of_x.scale.reshape(shape)


def requantize(sums: np.ndarray, factor: np.ndarray, output: Quantization) -> Integers:
    """Return exact sums times a float32 factor as integers of the output's type.

    Example:
        >>> output = Quantization(np.float32(1), np.uint8(10))
        >>> requantize(np.array([3, 5, -30, 1000]), np.float32(0.5), output).tolist()
        [12, 12, 0, 255]
    """
    zero = int(output.zero_point)
    scaled = sums.astype(np.float32) * factor.astype(np.float32)
    clamped = np.clip(scaled, np.float32(output.range.min - zero), np.float32(output.range.max - zero))
    return (np.rint(clamped).astype(np.int64) + zero).astype(output.range.dtype)


def convolve(
    x: Integers,
    weight: Integers,
    bias: Integers | None,
    of_x: Quantization,
    of_weight: Quantization,
    of_y: Quantization,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Integers:
    """Return a quantized convolution, (batch, out, height, width), as QLinearConv computes it."""
    top, left, bottom, right = pads
    padded = np.pad(of_x.centred(x), ((0, 0), (0, 0), (top, bottom), (left, right)))
    centred = of_weight.centred(weight)  # [out, in / groups, k, k]
    batch, channels = x.shape[:2]
    out_channels, in_group, *kernel = weight.shape
    height, width = (
        (padded.shape[axis + 2] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        for axis in (0, 1)
    )
    sums = np.zeros((batch, out_channels, height, width), np.int64)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            y, x0 = row * dilations[0], column * dilations[1]
            seen = padded[
                :,
                :,
                y : y + (height - 1) * strides[0] + 1 : strides[0],
                x0 : x0 + (width - 1) * strides[1] + 1 : strides[1],
            ]
            tap = centred[:, :, row, column]
            if in_group == 1 and out_channels == channels:
                sums += seen * tap[:, 0, None, None]
            else:
                # Products and sums stay below 2⁵³, so float64 computes them exactly, and fast.
                values = seen.reshape(batch, groups, in_group, -1).astype(np.float64)
                factors = tap.reshape(groups, -1, in_group).astype(np.float64)
                sums += (factors @ values).reshape(sums.shape).astype(np.int64)
    if bias is not None:
        sums += bias.astype(np.int64)[:, None, None]
    factor = of_x.scale * of_weight.scale / of_y.scale
    return requantize(sums, factor.reshape(-1, 1, 1) if factor.size > 1 else factor, of_y)


def matrix_product(
    x: Integers,
    weight: Integers,
    bias: Integers | None,
    of_x: Quantization,
    of_weight: Quantization,
    of_y: Quantization,
) -> Integers:
    """Return x·weightᵀ + bias, (batch, out), for a weight of shape (out, in), as QGemm computes it."""
    product = of_x.centred(x).astype(np.float64) @ of_weight.centred(weight).astype(np.float64).T
    sums = product.astype(np.int64)
    if bias is not None:
        sums += bias.astype(np.int64)
    return requantize(sums, of_x.scale * of_weight.scale / of_y.scale, of_y)


def add(a: Integers, b: Integers, of_a: Quantization, of_b: Quantization, of_y: Quantization) -> Integers:
    """Return the quantized sum, as QLinearAdd computes it on x86: fused multiply-adds, b before a."""
    ratio_a, ratio_b = of_a.scale / of_y.scale, of_b.scale / of_y.scale
    zero_a, zero_b, zero_y = (np.float32(of.zero_point) for of in (of_a, of_b, of_y))
    fixed = zero_y - _fused(np.asarray(zero_a), ratio_a, ratio_b * zero_b)
    total = _fused(a, ratio_a, _fused(b, ratio_b, fixed))
    integers: Integers = np.clip(np.rint(total), of_y.range.min, of_y.range.max).astype(of_y.range.dtype)
    return integers


def _fused(values: np.ndarray, factor: np.ndarray, addend: np.ndarray) -> np.ndarray:
    """Return values·factor + addend with one rounding to float32.

    The product of an 8-bit integer with a float32 has at most 32 bits, so float64 holds product and sum.
    """
    exact = values.astype(np.float64) * np.float64(factor) + addend.astype(np.float64)
    rounded: np.ndarray = exact.astype(np.float32)
    return rounded


def global_average(x: Integers, of_x: Quantization, of_y: Quantization) -> Integers:
    """Return the mean over the grid, (batch, channels, 1, 1), as QLinearGlobalAveragePool computes it."""
    sums = of_x.centred(x).sum((2, 3), keepdims=True)
    pixels = np.float32(x.shape[2] * x.shape[3])
    return requantize(sums, of_x.scale / (of_y.scale * pixels), of_y)
