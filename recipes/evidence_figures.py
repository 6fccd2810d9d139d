"""The figures of one network of docs/results.md; a later call reads them from a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from rich import get_console

from eq_aimet.experiments import ResultsFolder, Settings
from eq_aimet.experiments.foreign_files import read_json
from eq_aimet.experiments.training import quiet_libraries

if TYPE_CHECKING:
    import torch

    from eq_aimet.experiments.training import ImageDataModule

Figures = dict[str, dict[str, float]]  # the measured values, by the network's precision or the step

STABILITY_IMAGES = 128

# The method of equalization, whether the encodings of a block are tied, and the number of standard deviations
# of data-free calibration.
STEPS: dict[str, tuple[str, bool, float | None]] = {
    "AIMET: batch norms folded": ("fold", False, None),
    "AIMET: and cross-layer equalization": ("aimet-cle", False, None),
    "AIMET: and high-bias fold": ("aimet", False, None),
    "eq_aimet: batch norms folded, blocks tied": ("fold", True, None),
    "eq_aimet: and cross-layer equalization": ("cle", True, None),
    "eq_aimet: and high-bias fold (unpadded)": ("eq_aimet", True, None),
    "eq_aimet: and high-bias fold (all)": ("eq_aimet-all", True, None),
    "eq_aimet: calibrated without data, β ± 4σ": ("eq_aimet", True, 4.0),
    "eq_aimet: calibrated without data, β ± 7σ": ("eq_aimet", True, 7.0),
}

console = get_console()


def measured(settings: Settings, results: Path, kind: str) -> Figures:
    """Return the figures of a run's network; train and measure it only if no earlier call did."""
    trained = replace(settings, weights=Settings.weights)  # training ignores the INT8 weights' ranges
    folder = ResultsFolder.open(results / trained.run_name, trained.to_dict(), resume=True)
    file = folder.path / f"{kind}-{settings.weights}.json"
    if not file.exists():
        with quiet_libraries():
            from eq_aimet.experiments import open_data, train_network

            data = open_data(settings)
            console.log(f"{settings.run_name}")
            model, _ = train_network(settings.model, settings, data, folder)
            measure = measure_accuracies if kind == "accuracies" else measure_steps
            folder.write_json(file.name, measure(model, settings, data))
            console.log(f"{kind}: {file.read_text()}")
    content: Figures = read_json(
        file, expected="what this recipe wrote", remedy="Remove it to measure again."
    )
    return content


def measure_accuracies(model: torch.nn.Module, settings: Settings, data: ImageDataModule) -> Figures:
    """Return the figures of the network in FP32, and in INT8 after equalization."""
    from eq_aimet import export_model
    from eq_aimet.experiments import equalize, simulate

    images = data.images("train", settings.calibration_images).to(settings.device)
    plain = export_model(model, dummy_input=images[:1])
    in_float = figures(plain, plain, settings, data)
    is_equivariant = settings.model == "equivariant"
    equalize(plain, images[:1], "eq_aimet" if is_equivariant else "aimet")
    sim = simulate(plain, images, weights=settings.weights, tied=is_equivariant)
    return {"FP32": in_float, "INT8": figures(sim.model, plain, settings, data)}


def measure_steps(model: torch.nn.Module, settings: Settings, data: ImageDataModule) -> Figures:
    """Return the figures of the FP32 network and of its INT8 simulation after each of the `STEPS`."""
    from eq_aimet import export_model
    from eq_aimet.experiments import equalize, simulate

    images = data.images("train", settings.calibration_images).to(settings.device)
    reference = export_model(model, dummy_input=images[:1])
    found = {"FP32": figures(reference, reference, settings, data)}
    for step, (method, tied, deviations) in STEPS.items():
        plain = export_model(model, dummy_input=images[:1])
        equalize(plain, images[:1], method)
        sim = simulate(
            plain,
            images,
            weights=settings.weights,
            tied=tied,
            portable=False,
            standard_deviations=deviations,
        )
        found[step] = figures(sim.model, reference, settings, data)
    return found


def figures(
    model: torch.nn.Module, reference: torch.nn.Module, settings: Settings, data: ImageDataModule
) -> dict[str, float]:
    """Return accuracy, SQNR in dB against the reference, rotation errors and changed predictions."""
    import torch

    from eq_aimet import equivariance_error
    from eq_aimet.deploy.measuring import signal_to_noise
    from eq_aimet.experiments.pictures import measure_stability
    from eq_aimet.experiments.training import measure_accuracy

    images = data.images("test", STABILITY_IMAGES).to(settings.device)
    loader = data.test_dataloader()
    found = {
        "accuracy": measure_accuracy(model, loader, classes=data.classes, device=settings.device),
        "error_90": equivariance_error(model, images[:16], elements=[90, 180, 270]).worst,
        "error_45": equivariance_error(model, images[:16], elements=[45]).worst,
    }
    with torch.no_grad():
        logits, expected = (network(images).cpu().double().numpy() for network in (model, reference))
    found["sqnr"] = float(signal_to_noise(logits, expected)) if model is not reference else float("inf")
    stability = measure_stability(model, images, step=45, dtype=torch.float32)
    changed = dict(zip(stability.angles, stability.agreement, strict=True))
    found["changed_90"] = 1 - mean(changed[angle] for angle in (90.0, 180.0, 270.0))
    found["changed_45"] = 1 - mean(changed[angle] for angle in (45.0, 135.0, 225.0, 315.0))
    return found
