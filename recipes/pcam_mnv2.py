"""Trains MobileNetV2, conventional and rotation-equivariant, and prints what INT8 costs each of them.

After Mohamed, Cesa, Cohen and Welling, "A Data and Compute Efficient Design for Limited-Resources Deep
Learning", arXiv 2004.09691: small images of stained tissue (PatchCamelyon), the two networks layer by layer
alike, both equalized and simulated in INT8 by AIMET, and exported as the ONNX files that a device runs.

    $ pip install "eq_aimet[recipes]"
    $ python recipes/pcam_mnv2.py                     # synthetic tissue; about 4 minutes on 2 CPU cores
    $ python recipes/pcam_mnv2.py --data ~/pcam       # the real set, from https://github.com/basveeling/pcam
    $ python recipes/pcam_mnv2.py --resume            # goes on after Ctrl-C, at the epoch in progress
    $ python recipes/pcam_mnv2.py --data ~/pcam --width 1 --epochs 100 --batch-size 64 --device cuda

The results folder, `results/<the settings>/`, then holds

    table.md, table.json           the two tables that are printed at the end
    training.png                   loss and accuracy of both models over the epochs
    config.json                    the settings
    <model>/model.safetensors      the trained weights of lowest validation loss, as a plain torch model
    <model>/best.ckpt, last.ckpt   Lightning's checkpoints
    <model>/model.onnx             the INT8 network for the device
    <model>/model.float.onnx       the equalized FP32 network, and AIMET's model.encodings for it
    <model>/verification.*         what the INT8 file does in onnxruntime; text and JSON
    equivariant/equalization.*     what was equalized with what, what was left out and why; text and JSON
"""

from __future__ import annotations

import shlex
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import get_console
from rich.markup import escape

from eq_aimet.errors import DataError, EqAimetError, InvalidArgumentError
from eq_aimet.models.architecture import plan_architecture
from eq_aimet.training import ResultsFolder, Settings, quiet_libraries

if TYPE_CHECKING:
    import torch
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet.training import DeviceFigures, EpochRecord, PatchDataModule, TableRow

DEFAULT_IMAGES = (3072, 512, 1024)  # of the synthetic set: train, valid, test
ROTATED_IMAGES = 16  # test images on which the rotation errors are measured, of which the worst counts
LATENCY_RUNS = 300  # of either ONNX file, in turns, of which the median counts

NOTES = (
    "90°, 45°: the worst relative change of the logits under such turns",
    "INT8: as deployed, with weights limited to [-64, 63], which saturate nowhere",
    "latency: the median for one image on one thread",
    "turned: whether turns by the group's multiples of 90° keep all bits of the logits",
)

console = get_console()  # the progress bar uses it too, so that the two do not mix


def main(
    # --- data ---
    data: Annotated[
        Path | None, typer.Option(help="Folder of PCam's HDF5 files. Left out, synthetic tissue is used.")
    ] = None,
    train_images: Annotated[
        int | None,
        typer.Option(help=f"Training images; left out, all ({DEFAULT_IMAGES[0]} of the synthetic)."),
    ] = None,
    valid_images: Annotated[
        int | None, typer.Option(help=f"Validation images; left out, all ({DEFAULT_IMAGES[1]}).")
    ] = None,
    test_images: Annotated[
        int | None, typer.Option(help=f"Test images; left out, all ({DEFAULT_IMAGES[2]}).")
    ] = None,
    crop: Annotated[
        int,
        typer.Option(
            help="Side of the images about their centre, odd: 47 holds what decides, 95 is the paper's."
        ),
    ] = Settings.crop,
    # --- models ---
    model: Annotated[str, typer.Option(help="both, conventional or equivariant.")] = Settings.model,
    group: Annotated[
        int, typer.Option(help="N of the rotation group C_N; the paper takes 4 and 8.")
    ] = Settings.group,
    width: Annotated[
        float, typer.Option(help="Multiplier of the channel numbers; 1 is the full MobileNetV2.")
    ] = Settings.width,
    depthwise: Annotated[
        str, typer.Option(help="channel (as cheap as a conventional one) or field (e2cnn's own).")
    ] = Settings.depthwise,
    # --- training ---
    epochs: Annotated[int, typer.Option(help="How often each training image is seen.")] = Settings.epochs,
    batch_size: Annotated[int, typer.Option(help="Images in a step.")] = Settings.batch_size,
    learning_rate: Annotated[
        float, typer.Option(help="Highest learning rate of the one-cycle schedule.")
    ] = Settings.learning_rate,
    seed: Annotated[
        int, typer.Option(help="Of initial weights, order and augmentation; the data stay the same.")
    ] = Settings.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = Settings.device,
    precision: Annotated[
        str, typer.Option(help="Bits of the training's arithmetic: 32, bf16 or 16.")
    ] = Settings.precision,
    workers: Annotated[int, typer.Option(help="Processes that read images; 0 reads them in this one.")] = 0,
    # --- INT8 ---
    weights: Annotated[
        str, typer.Option(help="Ranges of the INT8 weights: per-tensor or per-channel.")
    ] = Settings.weights,
    calibration_images: Annotated[
        int, typer.Option(help="Training images from which the activations' ranges are taken.")
    ] = Settings.calibration_images,
    # --- run ---
    results: Annotated[Path, typer.Option(help="Folder under which the run's own folder is made.")] = Path(
        "results"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an earlier run of the same settings.")
    ] = False,
) -> None:
    """Train MobileNetV2, conventional and rotation-equivariant, and print what INT8 costs each of them."""
    try:
        if workers < 0:
            raise InvalidArgumentError(
                "--workers",
                received=workers,
                expected="an integer of at least 0",
                remedy="Leave it out to take 0.",
            )
        given = (train_images, valid_images, test_images)
        images = [
            default if count is None else count for count, default in zip(given, DEFAULT_IMAGES, strict=True)
        ]
        settings = Settings(
            *images,
            data="synthetic" if data is None else str(data.expanduser().resolve()),
            crop=crop,
            model=model,
            group=group,
            width=width,
            depthwise=depthwise,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weights=weights,
            calibration_images=calibration_images,
            device=device,
            precision=precision,
            seed=seed,
        )
        plan_architecture(width=width, divisor=group, input_size=crop)  # refuses what no network can be
        if data is not None:
            settings = count_images(settings, given)
        run(settings, results, workers=workers, resume=resume)
    except EqAimetError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        command = shlex.join(
            ["python", *(argument for argument in sys.argv if argument != "--resume"), "--resume"]
        )
        typer.echo(f"\nInterrupted. All finished epochs are kept; to go on:\n  {command}", err=True)
        raise typer.Exit(130) from None


def run(settings: Settings, results: Path, *, workers: int, resume: bool) -> None:
    """Does the whole experiment: data, training, export, equalization, INT8, table."""
    # What is slow to import comes after what can be refused, so that a mistake shows at once.
    folder = ResultsFolder.open(results / settings.run_name, settings.to_dict(), resume=resume)
    with console.status("loading Lightning and AIMET"), quiet_libraries():
        import aimet_torch.quantsim  # noqa: F401

        from eq_aimet.pictures import plot_training
        from eq_aimet.training import (
            PatchDataModule,
            markdown_device_table,
            markdown_table,
            terminal_device_table,
            terminal_table,
        )

    data = PatchDataModule(
        synthetic_folder(settings) if settings.data == "synthetic" else settings.data,
        batch_size=settings.batch_size,
        limits=(settings.train_images, settings.valid_images, settings.test_images),
        crop=settings.crop,
        seed=settings.seed,
        workers=workers,
        pin_memory=settings.device == "cuda",
    )
    counts = f"{len(data.train)} training, {len(data.valid)} validation and {len(data.test)} test images"
    say(f"[bold]data[/]     {escape(settings.data)}: {counts}")
    say(f"[bold]results[/]  {escape(str(folder.path))}")

    rows: list[TableRow] = []
    histories: dict[str, tuple[EpochRecord, ...]] = {}
    for name in settings.models:
        own_folder = folder.subfolder(name)
        trained, histories[name] = train(name, settings, data, own_folder)
        rows.append(quantize_and_measure(name, trained, settings, data, own_folder))

    title = f"MobileNetV2, width {settings.width:g}, C{settings.group}, INT8 weights {settings.weights}"
    device_title = f"The ONNX files in {rows[0].device.runtime}"
    tables = [markdown_table(rows), markdown_device_table(rows), "".join(f"- {note}\n" for note in NOTES)]
    folder.write_text("table.md", "\n".join(tables))
    folder.write_json("table.json", [row.to_dict() for row in rows])
    folder.write_bytes("training.png", plot_training(histories, title=title))
    console.print()
    console.print(terminal_table(rows, title=title))
    console.print(terminal_device_table(rows, title=device_title))
    for note in NOTES:
        console.print(f"[dim]{escape(note)}[/]", highlight=False)


def train(
    name: str, settings: Settings, data: PatchDataModule, folder: ResultsFolder
) -> tuple[torch.nn.Module, tuple[EpochRecord, ...]]:
    """Returns the model with the weights of the lowest validation loss, and the record of each epoch."""
    import torch

    from eq_aimet.training import ImageClassifier, best_weights, train_classifier

    torch.manual_seed(settings.seed)  # the initial weights
    model = build_model(name, settings)
    parameters = count_parameters(model)
    say(f"\n[bold]{name}[/]  {parameters:,} parameters; loss and accuracy:")

    def show_epoch(record: EpochRecord) -> None:
        say(
            f"  epoch {record.epoch:>{len(str(settings.epochs))}}/{settings.epochs}"
            f"   training {record.train_loss:.3f} {record.train_accuracy:6.1%}"
            f"   validation {record.valid_loss:.3f} {record.valid_accuracy:6.1%}"
        )

    history = train_classifier(
        ImageClassifier(model, learning_rate=settings.learning_rate, seed=settings.seed),
        data,
        folder.path,
        epochs=settings.epochs,
        device=settings.device,
        precision=settings.precision,
        on_epoch=show_epoch,
        progress=console.is_terminal,
    )
    model.load_state_dict(best_weights(folder.path))
    best = min(history, key=lambda record: record.valid_loss)
    say(f"  the weights of epoch {best.epoch} are kept: validation loss {best.valid_loss:.3f}")
    return model.to(settings.device).eval(), history


def quantize_and_measure(
    name: str, model: torch.nn.Module, settings: Settings, data: PatchDataModule, folder: ResultsFolder
) -> TableRow:
    """Returns the model's row of the tables, after equalization, INT8 simulation and export to ONNX."""
    import safetensors.torch
    from aimet_torch.common.quantsim_config.utils import (
        get_path_for_per_channel_config,
        get_path_for_per_tensor_config,
    )
    from aimet_torch.cross_layer_equalization import equalize_model
    from aimet_torch.model_preparer import prepare_model
    from aimet_torch.quantsim import QuantizationSimModel

    from eq_aimet import (
        equalize_equivariant,
        equivariance_error,
        export_model,
        make_portable,
        tie_encodings,
    )
    from eq_aimet.training import TableRow, measure_accuracy

    device = settings.device
    dummy_input = data.images("train", 1).to(device)
    rotated = data.images("test", ROTATED_IMAGES).to(device)

    # A plain torch model, whose additions are modules, so that AIMET sees and quantizes them too.
    with console.status("exporting"), quiet_libraries():
        equivariant = name == "equivariant"
        plain = (
            export_model(model, dummy_input=dummy_input) if equivariant else prepare_model(deepcopy(model))
        )
        state = {key: value.cpu().contiguous() for key, value in plain.state_dict().items()}
        folder.write_bytes("model.safetensors", safetensors.torch.save(state))
        fp32_accuracy = measure_accuracy(plain, data.test_dataloader(), device=device)
        fp32_error_90 = equivariance_error(plain, rotated, elements=[90, 180, 270]).worst
        fp32_error_45 = equivariance_error(plain, rotated, elements=[45]).worst

    # Batch-norm folding, cross-layer equalization and high-bias folding, in place.
    with console.status("equalizing"), quiet_libraries():
        if equivariant:
            report = equalize_equivariant(plain, dummy_input=dummy_input)
            folder.write_text("equalization.txt", f"{report}\n")
            folder.write_json("equalization.json", report.to_dict())
        else:
            equalize_model(plain, dummy_input=dummy_input)

    # INT8 weights and activations; the activations' ranges come from training images.
    with console.status("simulating INT8"), quiet_libraries():
        per_tensor = settings.weights == "per-tensor"
        config = get_path_for_per_tensor_config() if per_tensor else get_path_for_per_channel_config()
        sim = QuantizationSimModel(plain, dummy_input=dummy_input, config_file=config)
        sim.compute_encodings(lambda simulated: calibrate(simulated, settings, data))
        if equivariant:
            tie_encodings(sim)  # one range per rotation block where there is one per channel
        make_portable(
            sim, dummy_input
        )  # before measuring, so that the table is about the network that is deployed
        int8_accuracy = measure_accuracy(sim.model, data.test_dataloader(), device=device)
        # In float64: in float32 the order of summation alone flips a few roundings.
        int8_error_90 = equivariance_error(sim.model, rotated, elements=[90, 180, 270]).worst
        int8_error_45 = equivariance_error(sim.model, rotated, elements=[45]).worst
    say(f"  test accuracy  FP32 {fp32_accuracy:.1%}  INT8 {int8_accuracy:.1%}")

    with console.status("exporting to ONNX and running it"), quiet_libraries():
        figures = deploy(sim, rotated.cpu(), folder)
    fp32_size, int8_size = (f"{size / 1e3:,.0f} KB" for size in (figures.fp32_bytes, figures.int8_bytes))
    say(f"  ONNX file      FP32 {fp32_size}  INT8 {int8_size}")
    return TableRow(
        name,
        count_parameters(model),
        fp32_accuracy,
        int8_accuracy,
        fp32_error_90,
        int8_error_90,
        fp32_error_45,
        int8_error_45,
        figures,
    )


def deploy(sim: QuantizationSimModel, images: torch.Tensor, folder: ResultsFolder) -> DeviceFigures:
    """Returns what the INT8 file does in onnxruntime, after writing it, the FP32 file and the reports.

    Moves the simulation to the CPU.
    """
    from eq_aimet import export_onnx, verify_onnx
    from eq_aimet.training import DeviceFigures

    sim.model.cpu()
    path = folder.path / "model.onnx"
    exported = export_onnx(sim, images[:1], path, float_model=True)
    try:
        found = verify_onnx(path, sim, images, runs=LATENCY_RUNS)
    except OSError as error:  # it works in the folder for temporary files, which may be full
        raise DataError(f"`{path}`: could not be verified ({error}). Free some space.") from error
    folder.write_text("verification.txt", f"{exported}\n\n{found}\n")
    folder.write_json("verification.json", {"export": exported.to_dict(), "verification": found.to_dict()})
    return DeviceFigures.from_report(found, Path(exported.float_model))


def calibrate(simulated: torch.nn.Module, settings: Settings, data: PatchDataModule) -> None:
    """Runs the training images, as they are, through the simulated model."""
    import torch

    with torch.no_grad():
        for images in data.images("train", settings.calibration_images).split(64):
            simulated(images.to(settings.device))


def build_model(name: str, settings: Settings) -> torch.nn.Module:
    """Returns one of the two networks, which have the same layers and numbers of channels."""
    from eq_aimet.models import EquivariantMobileNetV2, MobileNetV2

    with console.status("building the model"), quiet_libraries():
        if name == "equivariant":
            return EquivariantMobileNetV2(
                width=settings.width,
                group=settings.group,
                depthwise=settings.depthwise,
                input_size=settings.crop,
            )
        return MobileNetV2(width=settings.width, divisor=settings.group, input_size=settings.crop)


def say(text: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    console.print(text, highlight=False, soft_wrap=True)


def count_parameters(model: torch.nn.Module) -> int:
    """Returns how many numbers the training learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def synthetic_folder(settings: Settings) -> Path:
    """Returns the user's cache folder with the synthetic set, which is written there at first use."""
    from platformdirs import user_cache_path

    from eq_aimet.data import write_synthetic_pcam

    counts = (settings.train_images, settings.valid_images, settings.test_images)
    folder = user_cache_path("eq_aimet") / "-".join(["synthetic", *map(str, counts)])
    return write_synthetic_pcam(folder, train=counts[0], valid=counts[1], test=counts[2])


def count_images(settings: Settings, limits: tuple[int | None, int | None, int | None]) -> Settings:
    """Returns the settings with the numbers of images that there are, or the limits where they are lower."""
    from eq_aimet.data import check_split

    counts = [check_split(settings.data, split).count for split in ("train", "valid", "test")]
    train_images, valid_images, test_images = (
        count if limit is None else min(limit, count) for count, limit in zip(counts, limits, strict=True)
    )
    return replace(settings, train_images=train_images, valid_images=valid_images, test_images=test_images)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
