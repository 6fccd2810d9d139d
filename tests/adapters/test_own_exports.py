"""Users' own equivariant modules with an `export()`: traced, or replaced by it where it is right."""

from __future__ import annotations

import pytest
import torch
from e2cnn import nn
from small_models import HIDDEN, IMAGE, image, run

from eq_aimet import ExportError, export_model, layer_blocks


class Block(nn.EquivariantModule):
    """A convolution and a ReLU, with the `export()` that e2cnn's documentation asks for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.in_type, self.out_type = IMAGE, HIDDEN
        self.convolution = nn.R2Conv(IMAGE, HIDDEN, 3)
        self.relu = nn.ReLU(HIDDEN)

    def forward(self, x):
        return self.relu(self.convolution(x))

    def evaluate_output_shape(self, shape):
        return shape

    def export(self):
        self.eval()
        return torch.nn.Sequential(self.convolution.export(), self.relu.export())


class Collects(Block):
    def export(self):
        return torch.nn.ModuleDict({"convolution": self.convolution.export()})


class Fails(Block):
    def export(self):
        raise NotImplementedError("not yet")


class Lies(Block):
    def export(self):
        return torch.nn.Identity()


class Undecided(Block):
    """Can't be traced, but exported."""

    def forward(self, x):
        return super().forward(x) if float(x.tensor.mean()) < 100.0 else x


class Network(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return self.block(nn.GeometricTensor(x, IMAGE)).tensor


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("kind", [Block, Collects, Fails, Lies])
def test_a_block_is_traced_whatever_it_exports(kind, training):
    network = Network(kind()).train(training)
    plain = export_model(network, image())
    assert all(module.training is training for module in network.modules())
    torch.testing.assert_close(run(plain, image()), run(network.eval(), image()))
    assert layer_blocks(plain.block.convolution) is not None


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_its_own_export_serves_where_it_cannot_be_traced(training):
    network = Network(Undecided()).train(training)
    plain = export_model(network, image())
    assert isinstance(plain.block, torch.nn.Sequential)
    assert not isinstance(plain.block[0], nn.EquivariantModule)
    torch.testing.assert_close(run(plain, image()), run(network.eval(), image()))
    assert not {p.data_ptr() for p in plain.parameters()} & {p.data_ptr() for p in network.parameters()}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Lies, "computes something else than the module itself"),
        (Collects, "its own `export\\(\\)` returned a ModuleDict"),
        (Fails, "its own `export\\(\\)` fails \\(NotImplementedError: not yet\\)"),
    ],
)
def test_an_export_of_its_own_that_does_not_serve_is_refused_by_name(kind, text):
    both = type(f"Undecided{kind.__name__}", (kind,), {"forward": Undecided.forward})
    both.forward = lambda self, x: Block.forward(self, x) if float(x.tensor.mean()) < 100.0 else x
    with pytest.raises(ExportError, match=rf"`model.block`: .*{text}"):
        export_model(Network(both()), image())
