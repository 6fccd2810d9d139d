"""Draw the pictures of the README and of "How it works" into docs/images.

    python docs/drawings.py                # the drawings of "How it works"
    python docs/drawings.py results/RUN    # also the picture of the README, from a run of pcam_mnv2.py

The weights and images of the drawings are computed, so that a drawing shows what the code does.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, FancyBboxPatch
from PIL import Image

from eq_aimet import Action, regular_actions, tag_blocks
from eq_aimet.symmetry import orbit_index, weight_orbits
from eq_aimet.symmetry.blocks import LayerBlocks
from eq_aimet.symmetry.scaling import block_ranges, pair_scales

IMAGES = Path(__file__).parent / "images"
INK = "#333333"
# Okabe and Ito's colours, which the colour-blind can tell apart too.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7")


def save(figure: Figure, name: str) -> None:
    """Write the figure as a PNG of 64 colours, which keeps the file small."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    image = Image.open(content).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(IMAGES / name, optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size / 1024:.0f} KB")


def framed(axes, values, colour=INK, title="", cmap="Greys", **limits) -> None:
    """Show a small image in a coloured frame."""
    axes.imshow(values, cmap=cmap, **limits)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(3 if colour != INK else 1)
    axes.set_title(title, fontsize=10, color=INK)


# --- a block under a turn ---------------------------------------------------------------------------------


def letter() -> torch.Tensor:
    """Return the picture of an F, of shape (1, 1, 15, 15)."""
    image = torch.zeros(1, 1, 15, 15)
    image[..., 3:12, 4:6] = image[..., 3:5, 4:11] = image[..., 7:9, 4:9] = 1.0
    return image


def oriented_channels(image: torch.Tensor) -> torch.Tensor:
    """Return four channels of a C4 lifting convolution: each finds edges of one direction; (4, 13, 13)."""
    edge = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    filters = torch.stack([torch.rot90(edge, turns) for turns in range(4)])[:, None]
    return torch.relu(torch.nn.functional.conv2d(image, filters))[0]


def draw_turn() -> None:
    """Draw the block of an F, and that of the F turned by 90°."""
    figure = Figure(figsize=(9, 4.6))
    axes = figure.subplots(2, 5, gridspec_kw={"wspace": 0.35, "hspace": 0.75})
    image = letter()
    for row, (turns, name) in enumerate(((0, "image"), (1, "image turned by 90°"))):
        turned = torch.rot90(image, turns, (2, 3))
        framed(axes[row, 0], turned[0, 0], title=name)
        for channel, values in enumerate(oriented_channels(turned)):
            colour = COLOURS[(channel - turns) % 4]
            framed(axes[row, 1 + channel], values, colour, f"channel {channel}", vmin=0, vmax=3)
    before, after = oriented_channels(image), oriented_channels(torch.rot90(image, 1, (2, 3)))
    assert torch.equal(after, torch.rot90(before, 1, (1, 2)).roll(1, 0)), (
        "the drawing would show something wrong"
    )
    for channel in range(4):
        arrow = ConnectionPatch(
            (0.5, -0.04),
            (0.5, 1.22),
            "axes fraction",
            "axes fraction",
            axesA=axes[0, 1 + channel],
            axesB=axes[1, 1 + (channel + 1) % 4],
            arrowstyle="-|>",
            color=COLOURS[channel],
            linewidth=1.8,
            mutation_scale=14,
        )
        figure.add_artist(arrow)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.03)
    save(figure, "turned_block.png")


# --- equalization -----------------------------------------------------------------------------------------


def c8_pair() -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return the output ranges of a C8 layer, the input ranges of the next layer, and the blocks between."""
    from eq_aimet import export_model
    from eq_aimet.adapters.e2cnn import enn, gspaces

    torch.manual_seed(1)
    space = gspaces.Rot2dOnR2(8)
    image, hidden = (
        enn.FieldType(space, types) for types in ([space.trivial_repr], 4 * [space.regular_repr])
    )
    layers = enn.SequentialModule(
        enn.R2Conv(image, hidden, 3), enn.ReLU(hidden), enn.R2Conv(hidden, hidden, 3)
    )
    plain = export_model(layers.eval(), torch.rand(1, 1, 9, 9))
    source, _, sink = plain.children()
    spread = np.repeat([3.0, 0.25, 1.0, 0.08], 8)  # as batch norms leave it behind
    ranges = source.weight.detach().abs().amax((1, 2, 3)).numpy() * spread
    return ranges, sink.weight.detach().abs().amax((0, 2, 3)).numpy(), (8, 8, 8, 8)


def draw_equalization() -> None:
    """Draw the channel ranges of a layer before and after equalization, and the scales in between."""
    source, sink, blocks = c8_pair()
    by_block = pair_scales(block_ranges(source, blocks), block_ranges(sink, blocks))
    by_channel = pair_scales(source, sink)
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True)
    channels = np.arange(len(source))
    colours = [COLOURS[block] for block in np.repeat(np.arange(4), blocks)]
    for axes, ranges, when in ((upper, source, "before"), (lower, source / by_block, "after")):
        axes.bar(channels, ranges, color=colours, width=0.8)
        axes.set_ylabel("largest |weight|", fontsize=9)
        ratio = ranges.max() / ranges.min()
        axes.set_title(
            f"{when}: the largest channel range is {ratio:.2g}× the smallest", fontsize=10, loc="left"
        )
    middle.plot(
        channels, by_channel, "o", color="#999999", markersize=4, label="AIMET: a scale for each channel"
    )
    for block, start in enumerate(np.cumsum((0, *blocks[:-1]))):
        ends = (start - 0.4, start + blocks[block] - 0.6)
        label = "eq_aimet: one scale for each block" if block == 0 else None
        middle.plot(ends, [by_block[start]] * 2, color=COLOURS[block], linewidth=3, label=label)
    middle.set_yscale("log")
    middle.set_yticks([0.6, 1, 2, 3], ["0.6", "1", "2", "3"])
    middle.minorticks_off()
    middle.set_ylabel("scale", fontsize=9)
    middle.set_title(
        "the layer is divided by these scales, the next layer multiplied", fontsize=10, loc="left"
    )
    middle.legend(frameon=False, fontsize=9)
    lower.set_xlabel("output channel; a colour for each block of C8, eight channels", fontsize=9)
    for axes in (upper, middle, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_xlim(-0.7, len(source) - 0.3)
    save(figure, "equalization.png")


# --- what is stored ---------------------------------------------------------------------------------------


def orbit_grid(axes, orbits, title) -> None:
    """Draw a matrix of weights with the number of its orbit in each cell."""
    rows, columns = orbits.shape
    shades = np.array([[0.93, 0.97, 1.0]] * orbits.size).reshape(rows, columns, 3)
    palette = np.array([tuple(int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)) for c in COLOURS])
    for place in np.ndindex(rows, columns):
        shades[place] = 1 - 0.55 * (1 - palette[orbits[place] % 4]) * (1 - 0.25 * (orbits[place] // 4))
        axes.text(*place[::-1], orbits[place], ha="center", va="center", fontsize=9, color=INK)
    axes.imshow(shades)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10, color=INK)


def draw_orbits() -> None:
    """Draw the orbits of a C4 filter from an image to a field, and of a 1×1 filter between two fields."""
    lifting = torch.nn.Conv2d(1, 4, 3)
    tag_blocks(lifting, [1], [4], actions=regular_actions([1], [4], order=4, kernel_size=3))
    filters = weight_orbits(lifting)[:, 0].numpy()
    shift: tuple[Action, ...] = regular_actions([4], [4], order=4)
    pointwise = orbit_index((4, 4), LayerBlocks((4,), (4,), shift)).numpy()
    figure = Figure(figsize=(9, 4.4))
    grid = figure.add_gridspec(2, 6, width_ratios=(1, 1, 1, 1, 0.35, 1), hspace=0.45, wspace=0.25)
    for channel in range(4):
        orbit_grid(figure.add_subplot(grid[0, channel]), filters[channel], f"filter of channel {channel}")
    orbit_grid(figure.add_subplot(grid[0, 5]), filters[0], "stored: 9 of 36")
    orbit_grid(figure.add_subplot(grid[1, 1:3]), pointwise, "1×1 weights between two fields")
    orbit_grid(figure.add_subplot(grid[1, 5]), pointwise[:1], "stored: 4 of 16")
    for height in (0.72, 0.26):
        figure.text(0.785, height, "→", fontsize=20, color=INK, ha="center", va="center")
    figure.subplots_adjust(left=0.02, right=0.98, top=0.92, bottom=0.03)
    save(figure, "orbits.png")


# --- the pipeline -----------------------------------------------------------------------------------------

STEPS = (
    ("export_model", "plain torch layers\nthat carry blocks"),
    ("equalize_equivariant", "one scale\nper block"),
    ("QuantizationSimModel\ntie_encodings", "INT8 in simulation,\ntied weights"),
    ("make_portable\nexport_onnx", "INT8 file, one weight\nstored per orbit"),
    ("verify_onnx", "equal bits under turns,\nmeasured"),
)


def draw_pipeline() -> None:
    """Draw the steps from the equivariant network to the verified file."""
    figure = Figure(figsize=(9, 1.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 19)
    axes.axis("off")
    for index, (function, result) in enumerate(STEPS):
        left = 1 + 20 * index
        axes.add_patch(
            FancyBboxPatch(
                (left, 9), 15.5, 7.5, boxstyle="round,pad=0.5", facecolor="#E8F1F8", edgecolor="#0072B2"
            )
        )
        axes.text(
            left + 7.75, 12.7, function, ha="center", va="center", fontsize=7.2, family="monospace", color=INK
        )
        axes.text(left + 7.75, 4.2, result, ha="center", va="center", fontsize=8.8, color=INK)
        if index + 1 < len(STEPS):
            axes.annotate(
                "",
                (left + 19.3, 12.7),
                (left + 16.2, 12.7),
                arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.4},
            )
    save(figure, "pipeline.png")


# --- the README's picture ---------------------------------------------------------------------------------


class Deployed(torch.nn.Module):
    """An INT8 ONNX file as a torch module, run by onnxruntime one image at a time."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def __deepcopy__(self, memo: object) -> "Deployed":
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        name = self.session.get_inputs()[0].name
        return torch.cat(
            [torch.from_numpy(self.session.run(None, {name: image[None].numpy()})[0]) for image in images]
        )


def draw_stability(run: Path, count: int = 512) -> None:
    """Draw the stability of the predictions of a run's two INT8 files over a full turn."""
    from eq_aimet.experiments import Settings, open_data
    from eq_aimet.experiments.pictures import measure_stability

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    settings = Settings(**json.loads((run / "config.json").read_text(encoding="utf-8")))
    images = open_data(settings).images("test", count)
    for name, colour in zip(("conventional", "equivariant"), COLOURS, strict=False):
        found = measure_stability(Deployed(run / name / "model.onnx"), images, dtype=torch.float32)
        angles, agreement = [*found.angles, 360], [*found.agreement, found.agreement[0]]
        axes.plot(angles, [100 * share for share in agreement], color=colour, linewidth=2, label=name)
        exact = [100 * found.agreement[found.angles.index(angle)] for angle in (0, 90, 180, 270)]
        print(name, "at 0°, 90°, 180°, 270°:", exact, "worst:", min(agreement))
        axes.plot((0, 90, 180, 270, 360), [*exact, exact[0]], "o", color=colour, markersize=5)
    axes.set_xticks(range(0, 361, 45), [f"{angle}°" for angle in range(0, 361, 45)])
    axes.set_xlim(0, 360)
    axes.set_ylabel("images with the same\nprediction as at 0°, in %", fontsize=9)
    axes.set_xlabel("turn of the images", fontsize=9)
    axes.set_title("INT8, deployed: does the prediction stay while the image turns?", fontsize=11, loc="left")
    axes.grid(color="#E5E5E5")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=9, loc="lower right", ncols=2)
    save(figure, "stability.png")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    draw_pipeline()
    draw_turn()
    draw_equalization()
    draw_orbits()
    if len(sys.argv) > 1:
        draw_stability(Path(sys.argv[1]))
