"""Norms of fields by label become one batch norm, which AIMET folds into the convolution."""

import pytest
import torch
from module_cases import randomise

from eq_aimet import equalize_equivariant, equivariance_error, export_model, layer_blocks
from eq_aimet.adapters.e2cnn import enn, gspaces

SPACE = gspaces.Rot2dOnR2(4)
SCALAR, REGULAR, VECTOR = SPACE.trivial_repr, SPACE.regular_repr, SPACE.irrep(1)
FIELDS = {"s": [SCALAR, SCALAR], "r": [REGULAR, REGULAR], "v": [VECTOR, VECTOR]}
NORMS = {"s": enn.InnerBatchNorm, "r": enn.InnerBatchNorm, "v": enn.NormBatchNorm}


def by_label(order, reshuffle=0, relu=(), without=(), generic=()):
    """Return a convolution, a norm for each label, and a convolution.

    Args:
        order: The label of each field, two of each.
        reshuffle: e2cnn's sorting of the fields.
        relu: Labels whose norm a ReLU follows, in one `SequentialModule`.
        without: Labels that pass as they are.
        generic: Labels whose norm is a `GNormBatchNorm`.
    """
    image = enn.FieldType(SPACE, [SCALAR])
    mixed = enn.FieldType(SPACE, [FIELDS[label][0] for label in order])
    modules = []
    for label in sorted(set(order)):
        field_type = enn.FieldType(SPACE, FIELDS[label])
        norm = (enn.GNormBatchNorm if label in generic else NORMS[label])(field_type)
        if label in without:
            norm = enn.IdentityModule(field_type)
        if label in relu:
            norm = enn.SequentialModule(norm, enn.ReLU(field_type))
        modules.append((norm, label))
    norms = enn.MultipleModule(mixed, list(order), modules, reshuffle=reshuffle)
    return enn.SequentialModule(
        enn.R2Conv(image, mixed, 3, bias=False), norms, enn.R2Conv(norms.out_type, image, 1)
    )


@pytest.mark.parametrize(
    ("order", "options"),
    [
        ("ssvv", {}),
        ("vvss", {}),
        ("rvsvsr", {}),
        ("rvsvsr", {"reshuffle": 1}),
        ("vsrvsr", {"reshuffle": 2}),
        ("ssrrvv", {"relu": ("r", "s")}),
        ("srsrvv", {"without": ("s",)}),
        ("srsrvv", {"generic": ("v",)}),
        ("ssrr", {"generic": ("s",)}),
    ],
)
def test_all_norms_fold_into_the_convolution(order, options):
    network = randomise(by_label(order, **options))
    x = torch.randn(2, 1, 9, 9)
    plain = export_model(network, x)
    expected = network(enn.GeometricTensor(x, network.in_type)).tensor.detach()
    assert float((plain(x).detach() - expected).abs().max()) <= 1e-6 * float(expected.abs().max())
    norms = [module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == 1
    report = equalize_equivariant(plain, dummy_input=x)
    assert [norm.folded_into for norm in report.norms] == ["0"]
    assert float((plain(x).detach() - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert equivariance_error(plain, x).worst < 1e-6


def test_the_merged_norm_carries_the_blocks_and_actions_of_its_parts():
    network = randomise(by_label("srsr"))
    plain = export_model(network, torch.randn(1, 1, 9, 9))
    (norm,) = [module for module in plain.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    blocks = layer_blocks(norm)
    assert blocks.blocks_out == (1, 4, 1, 4)
    assert len(blocks.actions) == 1
    assert sorted(blocks.actions[0].permutation_out) == list(range(10))


def test_a_norm_that_another_operation_bypasses_stays_where_it_is():
    class Bypassed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norms, _ = by_label("ssvv").children()

        def forward(self, x):
            y = self.convolution(enn.GeometricTensor(x, self.convolution.in_type))
            return self.norms(y).tensor + y.tensor

    network = randomise(Bypassed())
    x = torch.randn(1, 1, 9, 9)
    plain = export_model(network, x)
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules()) == 2
    torch.testing.assert_close(plain(x), network(x))
