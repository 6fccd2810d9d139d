"""Each class of both libraries: its export computes the same in eval mode and leaves the source alone."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from library_kits import E2CNN, ESCNN, KITS
from module_cases import Case, Network, input_types, randomise
from module_catalogue import CASES, public_classes

from eq_aimet import export_model, layer_blocks
from eq_aimet.adapters.conversion import to_plain_module
from eq_aimet.adapters.e2cnn import enn
from eq_aimet.adapters.e2cnn.modules import CONVERTERS
from eq_aimet.adapters.escnn.modules import REFUSED
from eq_aimet.adapters.libraries import library_of
from eq_aimet.errors import ExportError
from eq_aimet.symmetry import is_symmetric

C4, D4, SO2 = E2CNN.c4, E2CNN.d4, E2CNN.so2
field_type, regular = E2CNN.field_type, E2CNN.regular
KIT_OF = {kit.name: kit for kit in KITS}


def listed(outputs):
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


def run(model, inputs):
    with torch.no_grad():
        return listed(model(*(x.clone() for x in inputs)))


def assert_close(actual, expected, tolerance=1e-6):
    assert len(actual) == len(expected)
    for got, wanted in zip(actual, expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        difference = float((got - wanted).abs().max())
        assert difference <= tolerance * float(wanted.abs().max())
        assert float(wanted.abs().max()) > 0.0


def storages(module):
    tensors = itertools.chain(module.parameters(), module.buffers())
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_export_computes_what_the_source_does(case: Case):
    network = case.network()
    inputs = case.inputs()
    expected = run(network, inputs)
    plain = export_model(network, inputs)
    assert_close(run(plain, inputs), expected)
    other_batch = tuple(torch.cat((x, 2 * x[:1])) for x in inputs)
    assert_close(run(plain, other_batch), run(network, other_batch))
    libraries = {kit.name for kit in KITS}
    assert not [
        name for name, module in plain.named_modules() if libraries & set(type(module).__module__.split("."))
    ]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_module_alone_is_a_model_too(case: Case):
    module = randomise(case.build())
    inputs = tuple(
        case.kit.enn.GeometricTensor(x, in_type)
        for x, in_type in zip(case.inputs(), input_types(module), strict=True)
    )
    expected = run(Network(case.kit, module), case.inputs())
    with torch.no_grad():
        outputs = export_model(module, inputs)(*case.inputs())
    if isinstance(outputs, dict):
        outputs = [outputs[label] for label in sorted(outputs)]
    assert_close(listed(outputs), expected)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_export_leaves_the_source_as_it_was(case: Case, training: bool):
    network = case.network()
    with torch.no_grad():
        network.train(training)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in network.named_modules()}
    modes = {name: module.training for name, module in network.named_modules()}
    inputs = case.inputs()
    before = [x.clone() for x in inputs]
    plain = export_model(network, inputs)
    after = network.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert {name: set(vars(module)) for name, module in network.named_modules()} == attributes
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(x, old) for x, old in zip(inputs, before, strict=True))
    assert not storages(plain) & storages(network)
    assert not any(module.training for module in plain.modules())


@pytest.mark.parametrize("kit", KITS, ids=str)
def test_every_public_class_is_named(kit):
    public = public_classes(kit)
    assert public == {case.cls for case in CASES if case.kit is kit}
    library = library_of(kit.c4)
    tables = {*library.converters, *library.traced_through, *library.composites} - set(REFUSED)
    known = {cls for cls in tables if library.owns(cls)}
    assert {getattr(kit.enn, name) for name in public} == known
    assert all(inspect.isclass(getattr(kit.enn, name)) for name in public)


@pytest.mark.parametrize("kit", KITS, ids=str)
def test_a_class_that_nobody_names_is_missed(kit, monkeypatch):
    class NewModule(kit.enn.EquivariantModule):
        pass

    monkeypatch.setattr(kit.enn, "NewModule", NewModule, raising=False)
    monkeypatch.setattr(kit.enn, "__all__", [*kit.enn.__all__, "NewModule"])
    with pytest.raises(AssertionError):
        test_every_public_class_is_named(kit)


@pytest.mark.parametrize(
    "build",
    [
        lambda: enn.R2Conv(regular(C4), regular(C4), 3),
        lambda: enn.R2ConvTransposed(regular(C4), regular(C4), 3),
        lambda: enn.R2Diffop(regular(C4), regular(C4), 3, accuracy=1),
        lambda: ESCNN.enn.R2Conv(ESCNN.regular(ESCNN.c4), ESCNN.regular(ESCNN.c4), 3),
        lambda: ESCNN.enn.TensorProductModule(ESCNN.regular(ESCNN.c4), ESCNN.regular(ESCNN.c4)),
    ],
    ids=["R2Conv", "R2ConvTransposed", "R2Diffop", "escnn R2Conv", "escnn TensorProductModule"],
)
def test_weights_that_changed_in_eval_mode_are_exported(build):
    module = randomise(build())
    x = torch.randn(1, 8, 7, 7)
    with torch.no_grad():
        module.weights.mul_(2.0)
        typed = KIT_OF[type(module).__module__.partition(".")[0]].enn.GeometricTensor(x, module.in_type)
        stale = module(typed).tensor
        plain = to_plain_module(module)
        fresh = module.train().eval()(typed).tensor
        assert_close([plain(x)], [fresh])
    assert not torch.allclose(stale, fresh)


@pytest.mark.parametrize(
    "module",
    [
        enn.R2ConvTransposed(regular(D4), regular(D4), 3),
        enn.R2ConvTransposed(regular(C4), regular(C4), 3, groups=2),
        enn.R2Diffop(regular(C4), regular(C4), 5),
        enn.R2Diffop(regular(D4), regular(D4), 3, accuracy=1),
        enn.PointwiseMaxPoolAntialiased(regular(D4), 2),
        enn.GNormBatchNorm(regular(D4)),
        enn.InnerBatchNorm(regular(D4)),
        ESCNN.enn.R2ConvTransposed(ESCNN.regular(ESCNN.d4), ESCNN.regular(ESCNN.d4), 3),
        ESCNN.enn.R2Conv(ESCNN.regular(ESCNN.d4), ESCNN.regular(ESCNN.d4), 5),
        ESCNN.enn.IIDBatchNorm2d(ESCNN.regular(ESCNN.d4)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_weights_are_constant_on_their_orbits(module):
    plain = to_plain_module(randomise(module))
    tagged = [layer for layer in plain.modules() if layer_blocks(layer) is not None]
    assert len(tagged) == 1
    assert layer_blocks(tagged[0]).actions
    assert is_symmetric(tagged[0])


def test_a_differential_operator_claims_the_actions_that_it_has():
    """e2cnn's stencils with reflections are symmetric under the quarter turns only."""
    plain = to_plain_module(randomise(enn.R2Diffop(regular(D4), regular(D4), 3, accuracy=1)))
    assert [(action.turns, action.flip) for action in layer_blocks(plain).actions] == [(1, False)]
    flipped = to_plain_module(randomise(enn.R2Conv(regular(D4), regular(D4), 3)))
    assert [action.flip for action in layer_blocks(flipped).actions] == [False, True]


def test_batch_norms_without_means_are_torch_batch_norms():
    for module in (
        enn.NormBatchNorm(field_type(SO2, 1, 2)),
        enn.GNormBatchNorm(field_type(SO2, 0, 1)),
    ):
        plain = to_plain_module(randomise(module))
        assert type(plain) is torch.nn.BatchNorm2d
        assert layer_blocks(plain).blocks_out == tuple(r.size for r in module.in_type.representations)


def test_a_batch_norm_without_statistics_is_refused():
    with pytest.raises(ExportError, match=r"track_running_stats=False.*Train with running statistics"):
        to_plain_module(enn.InnerBatchNorm(regular(C4), track_running_stats=False))


def test_a_class_without_an_equivalent_is_refused_by_name(monkeypatch):
    monkeypatch.delitem(CONVERTERS, enn.NormPool)
    with pytest.raises(
        ExportError, match=r"`NormPool` of e2cnn has no exact plain equivalent.*register a plugin"
    ):
        to_plain_module(enn.NormPool(regular(C4)))


class Renamed(enn.ReLU):
    """Only adds to a class of e2cnn."""


class Doubled(enn.EquivariantModule):
    """A user's own module with a forward of its own."""

    def __init__(self, in_type):
        super().__init__()
        self.in_type = self.out_type = in_type
        self.relu = enn.ReLU(in_type)

    def forward(self, x):
        return self.relu(x) * 2.0

    def evaluate_output_shape(self, input_shape):
        return input_shape


def test_users_own_modules():
    in_type = regular(C4, 1)
    assert isinstance(to_plain_module(Renamed(in_type)), torch.nn.ReLU)
    assert to_plain_module(Doubled(in_type)) is None
    x = torch.randn(1, 4, 3, 3)
    assert torch.equal(export_model(Network(E2CNN, Doubled(in_type)), x)(x), 2.0 * x.relu())


def test_state_dict_holds_every_number():
    for case in CASES:
        plain = export_model(Network(case.kit, case.build()), case.inputs())
        state = plain.state_dict()
        missing = [name for name, _ in plain.named_buffers() if name not in state]
        constants = [
            f"{name}.{key}"
            for name, module in plain.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, torch.Tensor)
        ]
        assert not missing + constants


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_export_moves_to_another_device_as_a_whole(case: Case):
    """The meta device stands for a GPU: whatever stays behind on the CPU makes the forward fail."""
    plain = export_model(Network(case.kit, case.build()), case.inputs()).to("meta")
    outputs = listed(plain(*(x.to("meta") for x in case.inputs())))
    expected = run(Network(case.kit, case.build()).eval(), case.inputs())
    assert [output.device.type for output in outputs] == len(expected) * ["meta"]
    assert [output.shape for output in outputs] == [output.shape for output in expected]


def test_double_precision_is_kept():
    in_type = field_type(SO2, 0, 1, 2)
    network = randomise(Network(E2CNN, enn.NormNonLinearity(in_type))).double()
    x = torch.randn(1, in_type.size, 5, 5, dtype=torch.float64)
    plain = export_model(network, x)
    assert_close(run(plain, (x,)), run(network, (x,)), tolerance=1e-14)
    vectors = export_model(
        Network(E2CNN, enn.VectorFieldNonLinearity(regular(C4))).double(), torch.randn(1, 8, 3, 3).double()
    )
    assert {value.dtype for value in vectors.state_dict().values()} == {torch.float64}
