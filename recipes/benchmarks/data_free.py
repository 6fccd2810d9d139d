"""Compares activation ranges from batch-norm statistics with ranges from data, on a finished run's networks.

    $ python recipes/pcam_mnv2.py --data ~/pcam
    $ python recipes/benchmarks/data_free.py results/<its folder>

The second command prints the table of docs/data_free.md: accuracy, agreement with FP32 and SQNR of the
logits, on the test set.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import torch
from aimet_torch.common.quantsim_config.utils import get_path_for_per_tensor_config
from aimet_torch.cross_layer_equalization import equalize_model
from aimet_torch.model_preparer import prepare_model
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet import calibrate_without_data, equalize_equivariant, equivariant_hooks, export_model
from eq_aimet.experiments import Settings, build_network
from eq_aimet.experiments.foreign_files import read_json
from eq_aimet.experiments.tables import markdown_heading, markdown_row
from eq_aimet.experiments.training import PatchDataModule, best_weights, quiet_libraries

DEVIATIONS = (3, 4, 5, 6, 7, 8, 10)


def main(folder: Path) -> None:
    """Print the table."""
    settings = Settings(
        **read_json(folder / "config.json", expected="the settings of a run", remedy="Give a run's folder.")
    )
    limits = (settings.train_images, settings.valid_images, settings.test_images)
    data = PatchDataModule(settings.data, batch_size=64, limits=limits, crop=settings.crop, seed=0)
    calibration = data.images("train", settings.calibration_images)
    images, labels = (torch.cat(parts) for parts in zip(*data.test_dataloader(), strict=True))
    print(*markdown_heading(("network", "ranges from", "accuracy", "agreement with FP32", "SQNR")), sep="\n")
    for name in ("conventional", "equivariant"):
        with quiet_libraries():
            model = equalized(name, settings, folder, calibration[:1])
            exact = logits(model, images)
        print(markdown_row((name, "FP32", f"{accuracy(exact, labels):.1%}", "", "")))
        for deviations in (None, *DEVIATIONS):
            with quiet_libraries():
                simulated = logits(simulation(model, calibration, deviations).model, images)
            ratio = exact.square().sum() / (simulated - exact).square().sum()
            source = "data" if deviations is None else f"mean ± {deviations}σ"
            shares = (accuracy(simulated, labels), accuracy(simulated, exact.argmax(1)))
            cells = (name, source, *(f"{share:.1%}" for share in shares), f"{10 * ratio.log10():.1f} dB")
            print(markdown_row(cells), flush=True)


def equalized(name: str, settings: Settings, folder: Path, image: torch.Tensor) -> torch.nn.Module:
    """Return the run's trained network as an equalized plain model that keeps its statistics."""
    model = build_network(name, settings)
    model.load_state_dict(best_weights(folder / name))
    model.eval()
    if name == "equivariant":
        plain = export_model(model, dummy_input=image)
        equalize_equivariant(plain, dummy_input=image)
    else:
        plain = prepare_model(deepcopy(model))
        with equivariant_hooks():
            equalize_model(plain, dummy_input=image)
    return plain


def simulation(
    model: torch.nn.Module, calibration: torch.Tensor, deviations: float | None
) -> QuantizationSimModel:
    """Return the INT8 simulation; it is calibrated on data if `deviations` is None."""
    sim = QuantizationSimModel(
        model, dummy_input=calibration[:1], config_file=get_path_for_per_tensor_config()
    )
    if deviations is None:
        sim.compute_encodings(lambda simulated: logits(simulated, calibration))
    else:
        calibrate_without_data(sim, calibration[:1], standard_deviations=deviations)
    return sim


@torch.no_grad()
def logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the model's outputs, (images, classes)."""
    return torch.cat([model(batch) for batch in images.split(64)])


def accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of the images for which the label has the largest output."""
    return float((outputs.argmax(1) == labels).float().mean())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
