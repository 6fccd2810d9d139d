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

from eq_aimet import equalize_equivariant, export_model, layer_blocks
from eq_aimet.adapters import e2cnn, escnn
from eq_aimet.aimet.simulation.export_readiness import integer_weight
from eq_aimet.symmetry import weight_orbits
from eq_aimet.symmetry.orbits import orbit_spreads

logging.getLogger("aimet_torch").setLevel(logging.ERROR)

IMAGES = torch.rand(12, 3, 17, 17, generator=torch.Generator().manual_seed(7))
CONFIGURATIONS = {"tensor": get_path_for_per_tensor_config, "channel": get_path_for_per_channel_config}
# The spaces of exported networks: the adapter of the library, and a function that builds the space.
SPACES = {
    "e2cnn D4": (e2cnn, lambda: e2cnn.gspaces.FlipRot2dOnR2(4)),
    "escnn C4": (escnn, lambda: escnn.gspaces.rot2dOnR2(4)),
    "escnn D4": (escnn, lambda: escnn.gspaces.flipRot2dOnR2(4)),
}
# The group's order and the kind of depthwise layers.
KINDS = [(4, "channel"), (4, "field"), (8, "channel"), (8, "field")]


def network(order, depthwise, seed=0):
    """Return an equalized network; it has no batch norms any more."""
    model = Network(depthwise, order=order, seed=seed)
    equalize_equivariant(model, dummy_input=IMAGES[:1])
    return model


class Equivariant(torch.nn.Module):
    """A strided stem, a residual block and an invariant head, written with e2cnn or escnn."""

    def __init__(self, library, space):
        super().__init__()
        enn = library.enn
        self.image = enn.FieldType(space, 3 * [space.trivial_repr])
        fields = enn.FieldType(space, 2 * [space.regular_repr])
        self.tensor_class = enn.GeometricTensor
        self.stem = enn.SequentialModule(
            enn.R2Conv(self.image, fields, 3, stride=2, padding=1, bias=False),
            enn.InnerBatchNorm(fields),
            enn.ReLU(fields),
        )
        self.body = enn.SequentialModule(
            enn.R2Conv(fields, fields, 3, padding=1, bias=False),
            enn.InnerBatchNorm(fields),
            enn.ReLU(fields),
            enn.R2Conv(fields, fields, 1),
        )
        self.group_pool = enn.GroupPooling(fields)
        self.classifier = torch.nn.Linear(2, 3)

    def forward(self, x):
        x = self.stem(self.tensor_class(x, self.image))
        x = self.group_pool(x + self.body(x)).tensor
        return self.classifier(x.mean((2, 3)))


def exported(name, seed=0, *, equalized=True):
    """Return the export of a network over one of `SPACES`; equalized, it has no batch norms any more."""
    torch.manual_seed(seed)
    library, space = SPACES[name]
    model = Equivariant(library, space())
    with torch.no_grad():
        run(model)  # the batch norms take their statistics
    plain = export_model(model.eval(), IMAGES[:1])
    if equalized:
        equalize_equivariant(plain, dummy_input=IMAGES[:1])
    return plain


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


def assert_tied(sim, *, layers=6):
    """Check that the integers of each orbit are equal, in at least as many layers as `layers`."""
    names = []
    for name, integers, orbits in tied_weights(sim):
        assert not orbit_spreads(integers, orbits).any(), name
        names.append(name)
    assert len(names) >= layers
