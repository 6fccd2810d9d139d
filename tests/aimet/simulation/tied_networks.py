"""A small network of C_N with tied weights, and its simulations."""

import copy

import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.quantsim import QuantizationSimModel

from eq_aimet import symmetrize, tag_blocks
from eq_aimet.plain import Add, GroupMaxPool, Mask
from eq_aimet.symmetry import regular_actions

FIELDS = 3


class PlainNetwork(torch.nn.Module):
    """A C_N network with the layers that an export makes, tied by `symmetrize`; its input is 1×11×11."""

    def __init__(self, order: int) -> None:
        super().__init__()
        channels = FIELDS * order
        generator = torch.Generator().manual_seed(3)
        y, x = torch.meshgrid(torch.arange(11) - 5, torch.arange(11) - 5, indexing="ij")
        self.mask = Mask((x.square() + y.square() <= 30).float())
        self.lifting = torch.nn.Conv2d(1, channels, 3, padding=1)
        self.relu = torch.nn.ReLU()
        self.depthwise = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = torch.nn.Conv2d(channels, channels, 1)
        self.add = Add()
        self.relu_out = torch.nn.ReLU()
        self.pool = GroupMaxPool((order,) * FIELDS)
        self.average = torch.nn.AdaptiveAvgPool2d(1)
        self.flatten = torch.nn.Flatten()
        self.linear = torch.nn.Linear(FIELDS, 4)
        regular = [order] * FIELDS
        for layer, blocks_in in ((self.lifting, [1]), (self.depthwise, regular), (self.pointwise, regular)):
            torch.nn.init.normal_(layer.weight, generator=generator)
            actions = regular_actions(blocks_in, regular, order=order, kernel_size=layer.kernel_size[0])
            tag_blocks(layer, blocks_in, regular, actions=actions)
        tag_blocks(self.linear, 1)
        torch.nn.init.normal_(self.linear.weight, generator=generator)
        symmetrize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        lifted = self.relu(self.lifting(self.mask(images)))
        summed = self.relu_out(self.add(lifted, self.pointwise(self.depthwise(lifted))))
        return self.linear(self.flatten(self.average(self.pool(summed))))


IMAGES = torch.rand(8, 1, 11, 11, generator=torch.Generator().manual_seed(1))
CONFIGURATIONS = {"tensor": get_path_for_per_tensor_config, "channel": get_path_for_per_channel_config}


def simulate(model: torch.nn.Module, granularity: str = "channel", images: torch.Tensor = IMAGES):
    """Return the INT8 simulation of a copy of `model`, with its encodings computed."""
    torch.manual_seed(0)
    sim = QuantizationSimModel(
        copy.deepcopy(model).eval(),
        dummy_input=images,
        config_file=CONFIGURATIONS[granularity](),
        default_param_bw=8,
        default_output_bw=8,
    )
    sim.compute_encodings(lambda quantized: quantized(images))
    return sim


def simulate_layer(layer: torch.nn.Module, shape: tuple[int, ...], blocks: tuple[int, int]):
    tag_blocks(layer, *blocks)
    return simulate(torch.nn.Sequential(layer), images=torch.rand(shape))


def encodings(sim) -> dict[str, list[float]]:
    return {
        f"{name}.{key}": [
            value for parameter in quantizer.parameters() for value in parameter.detach().flatten().tolist()
        ]
        for name, module in sim.named_qmodules()
        for key, quantizer in module.param_quantizers.items()
        if quantizer is not None
    }
