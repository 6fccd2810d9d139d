"""Compares a deployed file with its simulation: `verify_onnx`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet.aimet.onnx.chosen_runtimes import chosen_runtimes
from eq_aimet.aimet.onnx.export import export_onnx
from eq_aimet.aimet.onnx.verification_arguments import check_counts, check_images, check_origin, checked_turns
from eq_aimet.aimet.onnx.verified_model import VerifiedModel
from eq_aimet.aimet.simulation.export_readiness import check_encodings
from eq_aimet.aimet.simulation.fingerprint import fingerprint
from eq_aimet.aimet.simulation.unchanged import copied_simulation
from eq_aimet.deploy.batches import fill_batch
from eq_aimet.deploy.evidence import reasons_of_inputs
from eq_aimet.deploy.findings import Fidelity, Latency
from eq_aimet.deploy.measuring import measure_latency, worst_agreement, worst_ratio
from eq_aimet.deploy.onnx.file_inputs import file_inputs
from eq_aimet.deploy.onnx.integer_reference import IntegerReference
from eq_aimet.deploy.onnx.marked_files import load_marked, marks
from eq_aimet.deploy.onnx.output_steps import output_steps
from eq_aimet.deploy.runtime_run import run_on
from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntime
from eq_aimet.deploy.runtimes.runtime import OpenedFile, Runtime
from eq_aimet.deploy.turn_test import Outputs, TurnTest
from eq_aimet.deploy.verification_report import VerificationReport
from eq_aimet.errors import EqAimetError, InvalidArgumentError
from eq_aimet.symmetry.calling import map_tensors
from eq_aimet.symmetry.elements import Element
from eq_aimet.symmetry.equivariance import equivariance_error
from eq_aimet.symmetry.outputs import TransformOutput

__all__ = ["integer_outputs", "verify_onnx"]

_JUDGED_IMAGES = 8  # for the simulation's own error, which needs float64 and AIMET


def verify_onnx(
    path: str | os.PathLike[str],
    sim: QuantizationSimModel,
    inputs: Any,
    *,
    elements: Sequence[float | Element] | None = None,
    transform_output: TransformOutput | None = None,
    runtimes: Sequence[str] = ("onnxruntime",),
    threads: Sequence[int] = (1, 2),
    runs: int = 20,
    reference_images: int = 2,
) -> VerificationReport:
    """Return a report on the file in one or more runtimes, and its agreement with `sim`.

    Runtimes have default options except the number of threads. `sim` does not change. The function refuses
    the file unless `export_onnx` wrote it from this simulation, and neither file nor simulation changed since
    then. If the comparison proves nothing (for example, all outputs are equal), `is_bit_exact` of the report
    is False and `unverified` names the reason.

    Args:
        path: A file that `export_onnx` wrote.
        sim: The simulation that it was exported from.
        inputs: Images as the model takes them, (images, channels, H, H); a tuple of several inputs, or a
            dictionary of inputs by name. Inputs of four or more dimensions are turned; other inputs are not.
        elements: Multiples of 90° or `Element`s, as in `equivariance_error`. The default is the exact
            elements of the model's layers.
        transform_output: The function that applies an element to an output, as in `equivariance_error`: a
            function of (output, element), or of (output, element, name).
        runtimes: The names of the runtimes to check: "onnxruntime", "qnn-htp" (Qualcomm's HTP; on x86
            Qualcomm's emulation of it, which is slow), "openvino", or a plugin's. Latency, operators and the
            integer reference always refer to onnxruntime.
        threads: The numbers of threads with which the elements are checked, 1 to 128.
        runs: The number of runs of the file and of the FP32 model. The latency is the median of these runs.
        reference_images: The number of images that the integer reference evaluates as well.

    Raises:
        InvalidArgumentError: If an argument is not as described, or the file did not come from `sim`.
        MissingPackageError: If a runtime is not installed.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from aimet_torch.quantsim import QuantizationSimModel
        >>> from eq_aimet import export_onnx, make_portable, verify_onnx
        >>> x = torch.rand(2, 1, 8, 8)
        >>> model = torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Conv2d(1, 2, 1)).eval()
        >>> sim = QuantizationSimModel(model, dummy_input=x)
        >>> sim.compute_encodings(lambda model: model(x))
        >>> _ = make_portable(sim, x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export_onnx(sim, x, f"{folder}/model.onnx")
        ...     report = verify_onnx(f"{folder}/model.onnx", sim, x, runs=3)
        >>> report.is_bit_exact
        True
    """
    check_encodings(sim)
    model = load_marked(path)
    check_counts(threads, runs, reference_images)
    twin = copied_simulation(sim)
    check_origin(path, marks(model), fingerprint(twin))
    chosen = chosen_runtimes(runtimes)
    specs = file_inputs(model)
    images = check_images(inputs, specs)
    turns = checked_turns(sim.model, elements, images)
    verified = VerifiedModel(twin, inputs, specs[0].shape[0])
    names, steps = verified.output_names, output_steps(model)
    test = TurnTest(Path(path), images, specs[0].shape[0], turns, transform_output, names, steps)
    simulated = verified.simulated()
    ran = [run_on(runtime, test, threads, simulated) for runtime in chosen]
    checks = tuple(check for run in ran for check in run.checks)
    changed = any(check.changed for check in checks)
    runtime = OnnxRuntime()
    opened = runtime.open(test.file, threads=1)
    latency, float_bytes = _latency(runtime, opened, test, verified, runs)
    reference = _reference(model, test, reference_images)
    of_outputs = [reason for run in ran for reason in run.unverified]
    error = _error_in_double(sim.model, inputs, turns, transform_output) if changed else None
    return VerificationReport(
        path=str(path),
        runtime=runtime.name,
        images=len(images[0]),
        elements=checks,
        fidelity=_fidelity(test.outputs(opened), simulated, verified.unquantized(), reference),
        latency=latency,
        file_bytes=test.file.stat().st_size,
        float_bytes=float_bytes,
        operators=runtime.operators(test.file),
        is_portable=marks(model).get("portable") == "true",
        is_exact_when_precise=_is_exact_when_precise(test) if changed else None,
        unverified=tuple(dict.fromkeys([*reasons_of_inputs(specs, images, turns), *of_outputs])),
        simulation_error=error,
        network_error=_network_error(sim, inputs, turns, transform_output) if error else None,
        runtimes=tuple(run.finding for run in ran),
    )


def integer_outputs(sim: QuantizationSimModel, inputs: torch.Tensor) -> torch.Tensor:
    """Return the first output of `sim` in the arithmetic of the device, computed without the runtime.

    The sim's own forward pass simulates quantization in floats. This function accumulates in integers and
    requantizes as onnxruntime does, so that its result agrees with the device bit for bit.

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
        outputs = IntegerReference(file)([inputs.detach().cpu().float().numpy()])[0]
    return torch.from_numpy(outputs)


def _latency(
    runtime: Runtime, opened: OpenedFile, test: TurnTest, verified: VerifiedModel, runs: int
) -> tuple[Latency, int]:
    """Return the latency beside the FP32 model's, and the size of the FP32 model's file."""
    batch = [fill_batch(tensor.numpy(), test.batch) for tensor in test.images]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float.onnx"
        float_batch = verified.write_float(file)
        latency = measure_latency(opened, runtime.open(file, threads=1), batch, float_batch, runs)
        return latency, file.stat().st_size


def _reference(model: onnx.ModelProto, test: TurnTest, count: int) -> Outputs:
    """Return the integer reference's outputs for the first images.

    Raises:
        InvalidArgumentError: If the reference can't evaluate the file.
    """
    if not count:
        return {}
    try:
        with np.errstate(all="ignore"):  # scales of NaN show in the outputs
            outputs = IntegerReference(model)([tensor[:count].numpy() for tensor in test.images])
    except EqAimetError:
        raise
    except Exception as error:
        raise InvalidArgumentError(
            "path",
            received=f"`{test.file}`, which the integer reference can't evaluate ({error})",
            expected="a file of operators that onnx's reference implementation knows",
            remedy="Call with `reference_images=0` to leave the reference out.",
        ) from error
    return dict(zip(test.outputs_of_file, outputs, strict=True))


def _fidelity(deployed: Outputs, simulated: Outputs, unquantized: Outputs, reference: Outputs) -> Fidelity:
    differences = [
        float(np.abs(expected.astype(np.float64) - deployed[name][: len(expected)]).max(initial=0.0))
        for name, expected in reference.items()
    ]
    return Fidelity(
        top1_agreement=worst_agreement(deployed, simulated),
        sqnr_sim=worst_ratio(simulated, unquantized),
        sqnr_deployed=worst_ratio(deployed, unquantized),
        sqnr_to_sim=worst_ratio(deployed, simulated),
        reference_images=max((len(output) for output in reference.values()), default=0),
        reference_difference=max(differences, default=0.0),
    )


def _is_exact_when_precise(test: TurnTest) -> bool | None:
    try:
        return not any(check.changed for check in test.run(OnnxRuntime(is_precise=True), 1))
    except EqAimetError:  # onnxruntime can't open a file with this option if a layer runs twice
        return None


def _network_error(
    sim: QuantizationSimModel, inputs: Any, turns: Sequence[Element], transform_output: TransformOutput | None
) -> float | None:
    network = QuantizationSimModel.get_original_model(copied_simulation(sim).model).eval()
    return _error_in_double(network, inputs, turns, transform_output)


def _error_in_double(
    model: torch.nn.Module, inputs: Any, turns: Sequence[Element], transform_output: TransformOutput | None
) -> float | None:
    some = map_tensors(lambda tensor: tensor[:_JUDGED_IMAGES].detach().clone(), inputs)
    try:
        return float(equivariance_error(model, some, elements=turns, transform_output=transform_output))
    except EqAimetError:  # a model that can't compute in float64, for example
        return None
