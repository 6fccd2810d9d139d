"""Sums, products, quotients, maxima, matrix products and concatenations."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from eq_aimet import plain
from eq_aimet.adapters.tracing.functions.operands import Activation, Converter, Operand, is_constant

__all__ = ["ARITHMETIC"]


def _add(input: Operand, other: Operand, *, alpha: float = 1) -> torch.nn.Module | None:
    if alpha != 1:
        return None
    if isinstance(input, Activation) and isinstance(other, Activation):
        return plain.Add()
    tensor, constant = (input, other) if isinstance(input, Activation) else (other, input)
    return _with_constant(plain.Shift, tensor, constant)


def _subtract(input: Operand, other: Operand, *, alpha: float = 1) -> torch.nn.Module | None:
    if alpha != 1 or not isinstance(input, Activation):
        return None
    if isinstance(other, Activation):
        return plain.Subtract()
    return _with_constant(plain.Shift, input, other, subtracts=True)


def _multiply(input: Operand, other: Operand) -> torch.nn.Module | None:
    if isinstance(input, Activation) and isinstance(other, Activation):
        return plain.Multiply()
    tensor, constant = (input, other) if isinstance(input, Activation) else (other, input)
    return _with_constant(plain.Scale, tensor, constant)


def _divide(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> torch.nn.Module | None:
    if rounding_mode is not None or not isinstance(input, Activation):
        return None
    if isinstance(other, Activation):
        return plain.Divide()
    return _with_constant(plain.Scale, input, other, divides=True)


def _negate(input: Operand) -> torch.nn.Module | None:
    return _with_constant(plain.Scale, input, -1.0)


def _with_constant(
    module: Any, tensor: Operand, constant: Operand, **options: bool
) -> torch.nn.Module | None:
    if not isinstance(tensor, Activation) or isinstance(constant, Activation):
        return None
    if isinstance(constant, torch.Tensor) and constant.dim() == 0 and tensor.example.is_floating_point():
        # torch computes with a scalar tensor in the dtype of the other operand.
        constant = constant if constant.dtype == tensor.example.dtype else constant.to(tensor.example.dtype)
    if not is_constant(constant, tensor):
        return None
    made: torch.nn.Module = module(constant, **options)
    return made


def _maximum(input: Operand, other: Operand) -> torch.nn.Module | None:
    return plain.Maximum() if _are_activations(input, other) else None


def _minimum(input: Operand, other: Operand) -> torch.nn.Module | None:
    return plain.Minimum() if _are_activations(input, other) else None


def _matrix_product(input: Operand, other: Operand) -> torch.nn.Module | None:
    if _are_activations(input, other) and input.rank > 1 and other.rank > 1:  # type: ignore[union-attr]
        return plain.MatrixProduct()
    return None


def _are_activations(*operands: Operand) -> bool:
    return all(isinstance(operand, Activation) for operand in operands)


def _concatenate(
    tensors: Sequence[Operand], dim: int = 0, *, axis: int | None = None
) -> torch.nn.Module | None:
    if not isinstance(tensors, (list, tuple)) or not _are_activations(*tensors):
        return None
    return plain.Concat(dim if axis is None else axis)


ARITHMETIC: dict[Any, tuple[str, Converter]] = {
    **dict.fromkeys((operator.add, torch.add, "add"), ("add", _add)),
    **dict.fromkeys((operator.sub, torch.sub, torch.subtract, "sub", "subtract"), ("subtract", _subtract)),
    **dict.fromkeys((operator.mul, torch.mul, torch.multiply, "mul", "multiply"), ("multiply", _multiply)),
    **dict.fromkeys(
        (operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide"),
        ("divide", _divide),
    ),
    **dict.fromkeys((operator.neg, torch.neg, torch.negative, "neg", "negative"), ("negate", _negate)),
    **dict.fromkeys((torch.maximum, "maximum"), ("maximum", _maximum)),
    **dict.fromkeys((torch.minimum, "minimum"), ("minimum", _minimum)),
    **dict.fromkeys(
        (operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"), ("matrix_product", _matrix_product)
    ),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), ("concat", _concatenate)),
}
