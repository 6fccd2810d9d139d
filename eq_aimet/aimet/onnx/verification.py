"""A deployed file, held against the simulation that it came from: `verify_onnx`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.onnx.export import export_float_onnx, export_onnx
from eq_aimet.aimet.simulation.export_readiness import check_encodings
from eq_aimet.deploy.onnx.integer_reference import IntegerReference
from eq_aimet.deploy.onnx.measuring import check_elements, measure_latency, signal_to_noise, top1_agreement
from eq_aimet.deploy.onnx.session import load_ours, open_session, operators_run, run_session, stamped
from eq_aimet.deploy.onnx.verification_report import ElementCheck, Fidelity, VerificationReport
from eq_aimet.errors import InvalidArgumentError
from eq_aimet.symmetry.elements import Element, exact_elements

__all__ = ["integer_outputs", "verify_onnx"]


def verify_onnx(
    path: str | os.PathLike[str],
    sim: QuantizationSimModel,
    inputs: torch.Tensor,
    *,
    threads: Sequence[int] = (1, 2),
    runs: int = 20,
    reference_images: int = 2,
) -> VerificationReport:
    """Return what the file does in onnxruntime, and how that compares with `sim`.

    Sessions have default options but for the number of threads.

    Args:
        path: A file that `export_onnx` wrote.
        sim: The simulation that it was exported from.
        inputs: Square images, (images, channels, H, H), as the model takes them.
        threads: The numbers of threads to check the exact elements at.
        runs: How many runs of the file and of the FP32 model the latency is the median of.
        reference_images: How many images to evaluate with the integer reference as well.

    Raises:
        InvalidArgumentError: If the file is not ours, too old, or not of this sim's shapes, or `inputs` are
            no square images.

    Example:
        >>> report = verify_onnx("model.onnx", sim, images)  # doctest: +SKIP
        >>> report.is_bit_exact                              # doctest: +SKIP
        True
    """
    model = load_ours(path)
    check_encodings(sim)
    facts = stamped(model)
    session = open_session(path)
    images = _checked_images(inputs, session)
    elements = exact_elements(sim.model)

    checks: tuple[ElementCheck, ...] = ()
    for count in threads:
        checks += check_elements(open_session(path, threads=count), images, elements, count)
    deployed = run_session(session, images.numpy())
    reference = deployed[:0]
    if reference_images:
        reference = IntegerReference(model)(images[:reference_images].numpy())
    float_model = QuantizationSimModel.get_original_model(sim.model).eval()
    simulated, unquantized = _outputs(sim.model, images), _outputs(float_model, images)
    _check_same_model(path, deployed, simulated)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        size = session.get_inputs()[0].shape[0]
        device = next(float_model.parameters()).device
        export_float_onnx(float_model, (_batch(images, size).to(device),), file)
        latency = measure_latency(session, open_session(file), _batch(images, size).numpy(), runs)
        float_bytes = file.stat().st_size
    return VerificationReport(
        path=str(path),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        images=len(images),
        elements=checks,
        fidelity=Fidelity(
            top1_agreement=top1_agreement(deployed, simulated),
            sqnr_sim=signal_to_noise(simulated, unquantized),
            sqnr_deployed=signal_to_noise(deployed, unquantized),
            sqnr_to_sim=signal_to_noise(deployed, simulated),
            reference_images=len(reference),
            reference_difference=float(np.abs(reference - deployed[: len(reference)]).max(initial=0.0)),
        ),
        latency=latency,
        file_bytes=Path(path).stat().st_size,
        float_bytes=float_bytes,
        operators=operators_run(path),
        is_portable=facts.get("portable") == "true",
        is_exact_when_precise=_is_exact_when_precise(path, checks, images, elements),
    )


def integer_outputs(sim: QuantizationSimModel, inputs: torch.Tensor) -> torch.Tensor:
    """Return the outputs of `sim` in the arithmetic of the device, computed without the runtime.

    The sim's own forward pass simulates quantization in floats; this one accumulates in int32 and
    requantizes as onnxruntime does, so that sim and device agree bit for bit.

    Args:
        sim: A simulation that `export_onnx` would take.
        inputs: A batch of inputs.

    Example:
        >>> integer_outputs(sim, images).shape  # doctest: +SKIP
        torch.Size([8, 2])
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(sim, inputs[:1], file, storage="plain", arranged=False)
        outputs = IntegerReference(file)(inputs.detach().cpu().float().numpy())
    return torch.from_numpy(outputs)


def _checked_images(inputs: torch.Tensor, session: onnxruntime.InferenceSession) -> torch.Tensor:
    expected = session.get_inputs()[0].shape
    is_fit = (
        isinstance(inputs, torch.Tensor)
        and inputs.dim() == 4
        and len(inputs) > 0
        and inputs.shape[-1] == inputs.shape[-2]
        and list(inputs.shape[1:]) == list(expected[1:])
    )
    if not is_fit:
        shape = tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else ()
        raise InvalidArgumentError(
            "inputs",
            received=f"a {type(inputs).__name__} of shape {shape}",
            expected=f"square images of shape (images, {', '.join(map(str, expected[1:]))})",
            remedy="Give images of the shape that the file was exported with, at least one.",
        )
    return inputs.detach().cpu().float()


def _batch(images: torch.Tensor, size: int | str) -> torch.Tensor:
    """Return a batch of the size that the file was exported for."""
    count = size if isinstance(size, int) else 1
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


@torch.no_grad()
def _outputs(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        outputs = [model(batch.to(device)).cpu() for batch in images.split(64)]
    finally:
        model.train(was_training)
    return torch.cat(outputs).as_subclass(torch.Tensor).numpy()


def _check_same_model(path: str | os.PathLike[str], deployed: np.ndarray, simulated: np.ndarray) -> None:
    if deployed.shape == simulated.shape:
        return
    raise InvalidArgumentError(
        "sim",
        received=f"a simulation with outputs of shape {simulated.shape}",
        expected=f"the one that `{path}` was exported from, with outputs of shape {deployed.shape}",
        remedy="Give the sim that the file came from, or export this one.",
    )


def _is_exact_when_precise(
    path: str | os.PathLike[str],
    checks: tuple[ElementCheck, ...],
    images: torch.Tensor,
    elements: tuple[Element, ...],
) -> bool | None:
    if not any(check.changed for check in checks):
        return None
    precise = open_session(path, is_precise=True)
    return not any(check.changed for check in check_elements(precise, images, elements, 1))
