"""What `equalize_equivariant` refuses, before anything is changed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from aimet_torch.utils import change_tensor_device_placement, create_rand_tensors_given_shapes, in_eval_mode

from eq_aimet.aimet.equalization.recorder import Fold
from eq_aimet.errors import EqualizationError, InvalidArgumentError
from eq_aimet.plugins import layer_blocks
from eq_aimet.symmetry import channel_counts, is_convolution

__all__ = ["check_folds", "check_input", "check_model"]


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
    # By name, so that neither package needs to be there.
    packages = {base.__module__.split(".")[0] for base in type(module).__mro__}
    for package in ("e2cnn", "escnn"):
        if package in packages:
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
        if not torch.isfinite(tensor).all():
            raise EqualizationError(
                f"`{name}.{tensor_name}` is not finite everywhere (NaN or infinity). "
                "Ranges and scales need finite weights; train or load the layer again."
            )


def check_input(
    model: torch.nn.Module, input_shapes: Any, dummy_input: Any
) -> tuple[Any, Counter[torch.nn.Module]]:
    """Return the input to trace the model with, and how often each module ran in a forward pass on it.

    Raises:
        InvalidArgumentError: If there is neither an input nor a shape, or the model does not take it.
    """
    argument = "input_shapes" if dummy_input is None else "dummy_input"
    if dummy_input is None and not input_shapes:
        raise InvalidArgumentError(
            "dummy_input",
            received=None,
            expected="an input of the model, or its shape as `input_shapes`",
            remedy="Give a batch of the kind that the model is used on, as `dummy_input`.",
        )
    received = f"shapes {input_shapes}" if dummy_input is None else _describe(dummy_input)
    runs: Counter[torch.nn.Module] = Counter()
    handles = [
        module.register_forward_hook(lambda module, *_: runs.update([module])) for module in model.modules()
    ]
    try:
        if dummy_input is None:
            dummy_input = create_rand_tensors_given_shapes(input_shapes, torch.device("cpu"))
        placed = change_tensor_device_placement(dummy_input, next(model.parameters()).device)
        with in_eval_mode(model), torch.no_grad():
            if isinstance(placed, list | tuple):
                model(*placed)
            elif isinstance(placed, dict):
                model(**placed)
            else:
                model(placed)
    except Exception as error:
        raise InvalidArgumentError(
            argument,
            received=received,
            expected="an input that the model computes an output for",
            remedy=f"The forward pass failed: {type(error).__name__}: {error}",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return dummy_input, runs


def check_folds(folds: list[Fold], runs: Counter[torch.nn.Module], names: dict[torch.nn.Module, str]) -> None:
    """Check that no batch norm was folded into, or out of, a place where a module runs again.

    Raises:
        EqualizationError: If one was; the model computes something else then.
    """
    for fold in folds:
        for module in (fold.layer, fold.norm):
            if runs[module] > 1:
                raise EqualizationError(
                    f"`{names[module]}` runs {runs[module]} times in one forward pass, so AIMET can't fold "
                    f"the batch norm `{names[fold.norm]}` into `{names[fold.layer]}`. Give each place a "
                    "module of its own, for example with copy.deepcopy."
                )


def _describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} of {value.dtype} on {value.device}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {', '.join(_describe(item) for item in value)}"
    return type(value).__name__
