"""Random small networks, their simulations, and the integers of their orbits."""

import logging

import torch
from aimet_torch.common.quantsim_config.utils import (
    get_path_for_per_channel_config,
    get_path_for_per_tensor_config,
)
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quantsim import QuantizationSimModel
from block_networks import Network

from eq_aimet import equalize_equivariant, layer_blocks
from eq_aimet.aimet.simulation.export_readiness import integer_weight
from eq_aimet.symmetry import weight_orbits
from eq_aimet.symmetry.orbits import orbit_spreads

logging.getLogger("aimet_torch").setLevel(logging.ERROR)

IMAGES = torch.rand(12, 3, 17, 17, generator=torch.Generator().manual_seed(7))
CONFIGURATIONS = {"tensor": get_path_for_per_tensor_config, "channel": get_path_for_per_channel_config}
# The group's order and the kind of depthwise layers.
KINDS = [(4, "channel"), (4, "field"), (8, "channel"), (8, "field")]


def network(order, depthwise, seed=0):
    """Return an equalized network; it has no batch norms any more."""
    model = Network(depthwise, order=order, seed=seed)
    equalize_equivariant(model, dummy_input=IMAGES[:1])
    return model


def run(model):
    for batch in IMAGES.split(4):
        model(batch)


def simulate(model, granularity="channel", bits=4, *, calibrated=True):
    sim = QuantizationSimModel(
        model, dummy_input=IMAGES[:1], config_file=CONFIGURATIONS[granularity](), default_param_bw=bits
    )
    if calibrated:
        sim.compute_encodings(run)
    return sim


def tied_weights(sim):
    """Yield each weight whose orbits are known: its name, its integers and its orbits."""
    for name, module in sim.model.named_modules():
        blocks = layer_blocks(module)
        if isinstance(module, BaseQuantizationMixin) and blocks is not None and blocks.actions:
            quantizer = module.param_quantizers["weight"]
            yield name, integer_weight(module.weight, quantizer), weight_orbits(module)


def assert_tied(sim):
    """Check that the integers of each orbit are equal, and that there are orbits to check."""
    names = []
    for name, integers, orbits in tied_weights(sim):
        assert not orbit_spreads(integers, orbits).any(), name
        names.append(name)
    assert len(names) >= 6
