"""Small tied networks and their simulations: all that a deployed file has to get right, in miniature."""

import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.nn.modules.custom import Concat
from aimet_torch.quantsim import QuantizationSimModel
from torch import nn

from eq_aimet.deploy.batches import run_in_batches
from eq_aimet.deploy.runtimes.onnxruntime import OnnxRuntimeFile, open_session
from eq_aimet.plain import Add, GroupMaxPool, Mask
from eq_aimet.symmetry import Action, regular_actions, symmetrize, tag_blocks

SIZE = 17


def convolution(fields_in, fields_out, kernel_size=1, *, order, image=False, depthwise=None, **options):
    """A tied convolution between regular fields of C_N."""
    blocks_in = [1] * fields_in if image else [order] * fields_in
    blocks_out = [order] * fields_out
    groups = {None: 1, "channel": order * fields_in, "field": fields_in}[depthwise]
    layer = nn.Conv2d(sum(blocks_in), sum(blocks_out), kernel_size, groups=groups, **options)
    actions = regular_actions(blocks_in, blocks_out, order=order, kernel_size=kernel_size)
    tag_blocks(layer, blocks_in, blocks_out, actions=actions)
    symmetrize(layer)
    # e2cnn has one bias for all channels of a field
    layer.bias.data = layer.bias.data.reshape(-1, order).mean(1).repeat_interleave(order)
    return layer


def disk(size):
    """1 in the circle inscribed in a grid, else 0."""
    place = torch.arange(size) - (size - 1) / 2
    return ((place[:, None] ** 2 + place**2) <= (size / 2) ** 2).float()[None, None]


class Residual(nn.Module):
    """Stem, depthwise layer, residual addition, masks, group pooling, average, linear layer; 17 → 9."""

    def __init__(self, order=4, depthwise="channel", fields=3, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.mask = Mask(disk(SIZE))
        self.stem = nn.Sequential(
            convolution(3, fields, 3, order=order, image=True, stride=2, padding=1), nn.ReLU()
        )
        self.body = nn.Sequential(
            convolution(fields, 2 * fields, order=order),
            nn.ReLU(),
            convolution(2 * fields, 2 * fields, 3, order=order, depthwise=depthwise, padding=1),
            nn.ReLU(),
            convolution(2 * fields, fields, order=order),
        )
        self.add = Add()
        self.head = nn.Sequential(convolution(fields, 6, order=order), nn.ReLU(), Mask(disk(9)))
        self.group_pool = GroupMaxPool((order,) * 6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(self.mask(x))
        x = self.add(x, self.body(x))
        x = self.pool(self.group_pool(self.head(x)))
        return self.classifier(x.flatten(1))


class Dense(nn.Module):
    """Each layer sees all former ones; windows averaged; 17 → 9 → 3."""

    def __init__(self, order=4, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(
            convolution(3, 2, 3, order=order, image=True, stride=2, padding=1), nn.ReLU()
        )
        self.first = nn.Sequential(convolution(2, 2, 3, order=order, padding=1), nn.ReLU())
        self.second = nn.Sequential(convolution(4, 2, 3, order=order, padding=1), nn.ReLU())
        self.join, self.join_all = Concat(1), Concat(1)
        self.windows = nn.AvgPool2d(3)
        self.group_pool = GroupMaxPool((order,) * 6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        x = self.join(x, self.first(x))
        x = self.windows(self.join_all(x, self.second(x)))
        return self.classifier(self.pool(self.group_pool(x)).flatten(1))


def d4_network(seed=0):
    """Lifting to the eight channels of D4's regular field, and a convolution between such fields."""
    torch.manual_seed(seed + 3)
    elements = [(turns, flip) for flip in (0, 1) for turns in range(4)]  # r^turns m^flip

    def times(first, second):
        (a, f), (b, g) = first, second
        return ((a + (-b if f else b)) % 4, f ^ g)

    def layer(fields_in, fields_out, kernel_size, *, image=False, **options):
        def permutation(element, fields, is_image):
            if is_image:
                return tuple(range(fields))
            inside = [elements.index(times(element, other)) for other in elements]
            return tuple(8 * field + place for field in range(fields) for place in inside)

        actions = tuple(
            Action(permutation(element, fields_in, image), permutation(element, fields_out, False), *element)
            for element in ((1, 0), (0, 1))
        )
        channels_in = fields_in if image else 8 * fields_in
        convolution = nn.Conv2d(channels_in, 8 * fields_out, kernel_size, **options)
        tag_blocks(convolution, 1 if image else 8, 8, actions=actions)
        symmetrize(convolution)
        return convolution

    return nn.Sequential(
        layer(3, 3, 3, image=True, stride=2, padding=1),
        nn.ReLU(),
        layer(3, 4, 3, padding=1),
        nn.ReLU(),
        GroupMaxPool((8,) * 4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


def varied_images(count, seed=5):
    """Noise of different brightness and colour, so that the answers differ."""
    generator = torch.Generator().manual_seed(seed)
    colours = 3 * torch.rand(count, 3, 1, 1, generator=generator)
    return colours * torch.rand(count, 3, SIZE, SIZE, generator=generator)


def run_file(source, images, **options):
    """The first output of a file or of a model's bytes in onnxruntime."""
    session = open_session(source, **options)
    size = session.get_inputs()[0].shape[0]
    return run_in_batches(
        OnnxRuntimeFile(session).run, [images], size if isinstance(size, int) else len(images)
    )[0]


def simulate(model, *, per_channel=False, images=None):
    """AIMET's simulation with encodings from random images."""
    path = get_path_for_per_channel_config() if per_channel else get_path_for_per_tensor_config()
    images = varied_images(8, seed=1) if images is None else images
    sim = QuantizationSimModel(model.eval(), dummy_input=images[:1], config_file=path)
    sim.compute_encodings(lambda quantized: quantized(images))
    return sim
