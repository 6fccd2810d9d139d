"""The checks of `equalize_equivariant`'s arguments, before the model is changed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from aimet_torch.utils import create_rand_tensors_given_shapes

from eq_aimet.adapters.libraries import package_of
from eq_aimet.adapters.tracing.refusals import is_raised_by_user, place_of
from eq_aimet.errors import EqAimetError, EqualizationError, ForwardError, InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry.calling import as_arguments, map_tensors, tensors_in
from eq_aimet.symmetry.layers import channel_counts, is_convolution

__all__ = ["check_model", "make_inputs", "refuse_input"]


def check_model(model: Any) -> None:
    """Check that a model can be equalized.

    Raises:
        InvalidArgumentError: If `model` is not a module.
        EqualizationError: If it is not a plain model whose layers carry blocks that fit, with finite weights.
    """
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgumentError(
            "model",
            received=type(model).__name__,
            expected="a torch.nn.Module",
            remedy="Give the plain model that `export_model` returns.",
        )
    modules = dict(model.named_modules())
    for name, module in modules.items():
        _check_origin(name, module)
    if all(layer_blocks(module) is None for module in modules.values()):
        raise EqualizationError(
            f"No layer of this {type(model).__name__} carries rotation blocks. They are lost where layers "
            "are rebuilt, for example by torch.fx, a model preparer or a state dict loaded into new layers. "
            "Export the model again with `export_model`, or tag its layers with `tag_blocks`; a conventional "
            "model needs no blocks: give it to AIMET's `equalize_model`."
        )
    for name, module in modules.items():
        _check_blocks(name, module)
        _check_parameters(name, module)


def _check_origin(name: str, module: torch.nn.Module) -> None:
    package = package_of(module)
    if package is not None:
        raise EqualizationError(
            f"`{name or 'model'}` is a {type(module).__name__} of {package}, whose weights AIMET can't "
            "read. Make a plain model first: `plain = export_model(model, dummy_input)`."
        )
    if any(base.__name__ == "BaseQuantizationMixin" for base in type(module).__mro__):
        raise EqualizationError(
            f"`{name or 'model'}` is a {type(module).__name__}, a layer of a quantization simulation. "
            "Equalize the model first, then build the `QuantizationSimModel`."
        )


def _check_blocks(name: str, module: torch.nn.Module) -> None:
    blocks, counts = layer_blocks(module), channel_counts(module)
    if blocks is None or counts is None:
        return
    for side, sizes, channels in zip(
        ("input", "output"), (blocks.blocks_in, blocks.blocks_out), counts, strict=True
    ):
        if sum(sizes) != channels:
            raise EqualizationError(
                f"The blocks of `{name}` add up to {sum(sizes)} {side} channels, but {module} has "
                f"{channels}. The layer was changed, for example pruned, after it got its blocks; "
                "tag it again with `tag_blocks`."
            )


def _check_parameters(name: str, module: torch.nn.Module) -> None:
    if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) and (
        module.running_mean is None or module.running_var is None or module.weight is None
    ):
        raise EqualizationError(
            f"The batch norm `{name}` has no {'weight' if module.weight is None else 'running statistics'}, "
            "so AIMET can't fold it. "
            "Build it with affine=True and track_running_stats=True."
        )
    if is_convolution(module) and not isinstance(module._parameters.get("weight"), torch.nn.Parameter):
        raise EqualizationError(
            f"The weight of `{name}` is computed from other parameters, so it can't be scaled in place. "
            "Remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations)."
        )
    tensors = {**module._parameters, **module._buffers}
    for tensor_name, tensor in tensors.items():
        if tensor is None or not tensor.is_floating_point():
            continue
        if tensor.is_meta:
            raise EqualizationError(
                f"`{name}.{tensor_name}` is on the meta device and has no values. Load the weights first."
            )
        if tensor.dtype not in (torch.float32, torch.float64):
            raise EqualizationError(
                f"`{name}.{tensor_name}` is of {tensor.dtype}. Equalization needs float32 or float64: call "
                "`model.float()` first, and convert the model back afterwards."
            )
        if tensor.is_inference():
            raise EqualizationError(
                f"`{name}.{tensor_name}` was made under `torch.inference_mode()`, so it can't be changed in "
                "place. Build or load the model outside of it, or use copy.deepcopy(model) there."
            )
        if not torch.isfinite(tensor).all():
            raise EqualizationError(
                f"`{name}.{tensor_name}` is not finite everywhere (NaN or infinity). "
                "Ranges and scales need finite weights; train or load the layer again."
            )


def make_inputs(model: torch.nn.Module, input_shapes: Any, dummy_input: Any) -> Any:
    """Return the inputs that the model is called on, as copies on the model's device.

    Raises:
        InvalidArgumentError: If both `dummy_input` and `input_shapes` are missing, the input has no values,
            or the model's `forward` does not take inputs of this number or of these names.
    """
    if dummy_input is None and input_shapes is None:
        raise InvalidArgumentError(
            "dummy_input",
            received=None,
            expected="an input of the model, or its shape as `input_shapes`",
            remedy="Give a batch of the kind that the model is used on, as `dummy_input`.",
        )
    argument = "input_shapes" if dummy_input is None else "dummy_input"
    if dummy_input is None:
        dummy_input = _inputs_of_shapes(input_shapes)
    tensors = tensors_in(dummy_input)
    if not tensors or any(tensor.is_meta or tensor.numel() == 0 for tensor in tensors):
        raise InvalidArgumentError(
            argument,
            received=_describe(dummy_input),
            expected="a tensor, or a tuple or dictionary of tensors, with at least one value each",
            remedy="Give a batch of the kind that the model is used on.",
        )
    args, kwargs = as_arguments(dummy_input)
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidArgumentError(
            argument,
            received=_describe(dummy_input),
            expected=f"the inputs of `forward{signature}` of {type(model).__name__} ({error})",
            remedy="Give a tuple with one entry per input, or a dictionary with one entry per name.",
        ) from error
    device = next(model.parameters()).device
    return map_tensors(lambda tensor: _usable(tensor, device), dummy_input)


def _usable(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a copy that can be traced, and whose values can show a change of the model's function."""
    copied = tensor.detach().to(device, copy=True)
    if not copied.is_floating_point() or copied.layout != torch.strided:
        return copied
    # Outputs that are not finite can't be compared, and zeros show the model's biases only.
    if not copied.isfinite().all() or copied.amin() == copied.amax():
        copied = torch.rand(copied.shape, device=device, dtype=torch.float32).to(copied)
    return copied


def _inputs_of_shapes(input_shapes: Any) -> tuple[torch.Tensor, ...]:
    try:
        tensors = tuple(create_rand_tensors_given_shapes(input_shapes, torch.device("cpu")))
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_shape(input_shapes) from error
    if not tensors:
        raise _no_shape(input_shapes)
    return tensors


def _no_shape(input_shapes: Any) -> InvalidArgumentError:
    return InvalidArgumentError(
        "input_shapes",
        received=repr(input_shapes),
        expected="the shape of the input, or a list of shapes",
        remedy="Give, for example, (1, 3, 32, 32).",
    )


def refuse_input(error: Exception, model: torch.nn.Module, inputs: Any, *, by_shape: bool) -> EqAimetError:
    """Return the error for a model whose forward pass failed on the inputs."""
    problem = f"{type(error).__name__}: {error}".splitlines()[0]
    if is_raised_by_user(error) or not isinstance(error, RuntimeError | ValueError | IndexError | TypeError):
        return ForwardError(
            f"`forward` of {type(model).__name__} fails on {_describe(inputs)}, at {place_of(error)} "
            f"({problem}). Correct this line, or give an input that it accepts."
        )
    types = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    return InvalidArgumentError(
        "input_shapes" if by_shape else "dummy_input",
        received=_describe(inputs),
        expected="an input that the model computes an output for",
        remedy=f"The model's weights are of {' and '.join(sorted(map(str, types)))}, and its forward pass "
        f"failed: {problem}",
    )


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype} on {value.device}"
    if isinstance(value, Mapping):
        return f"a dictionary of {', '.join(f'{key}: {_describe(item)}' for key, item in value.items())}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(_describe(item) for item in value)}"
    return type(value).__name__
