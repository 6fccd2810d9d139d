"""Random networks: the export differs from the source by rounding, and is as equivariant as it.

Equalization changes neither, and its report names every layer.

`EQ_AIMET_RANDOM_NETWORKS` says how many are drawn of each library.
"""

from __future__ import annotations

import copy
import os

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_kits import E2CNN, ESCNN
from module_cases import randomise

from eq_aimet import equalize_equivariant, equivariance_error, export_model
from eq_aimet.symmetry.calling import named_tensors
from eq_aimet.symmetry.layers import is_layer

IN_CI = "EQ_AIMET_RANDOM_NETWORKS" not in os.environ
COUNT = int(os.environ.get("EQ_AIMET_RANDOM_NETWORKS", "25"))
SIZE = 9
# escnn samples its bases in float32: copies of a weight differ by up to 1e-6, and the export averages them.
TOLERANCES = {"e2cnn": 1e-6, "escnn": 5e-6}
TURNS = [90.0, 180.0, 270.0]


class RandomNetwork(torch.nn.Module):
    """Stages of modules, each alone, with a residual, or in two branches that are joined."""

    def __init__(self, kit, space, plan):
        super().__init__()
        self.kit, self.space = kit, space
        enn = kit.enn
        self.in_type = enn.FieldType(space, [space.trivial_repr])
        fields = _fields(kit, space, plan["widths"][0])
        self.lift = enn.R2Conv(self.in_type, fields, 3, padding=1)
        self.stages, self.joins = torch.nn.ModuleList(), []
        for kind, join, width in plan["stages"]:
            target = fields if join == "residual" else _fields(kit, space, width)
            branches = torch.nn.ModuleList([_stage(kit, kind, fields, target)])
            if join == "branches":
                branches.append(_stage(kit, "pointwise", fields, _fields(kit, space, 1)))
                target = branches[0].out_type + branches[1].out_type
            self.stages.append(branches)
            self.joins.append(join)
            fields = target
        self.extras = sorted(plan.get("extras", ()), key="labels".__eq__)  # labels reorder the fields: last
        self.again = _stage(kit, "pointwise", fields, fields)
        self.gain = torch.nn.Parameter(torch.tensor(0.5))
        self.by_label = _by_label(kit, fields)
        self.fields = self.by_label.out_type if "labels" in self.extras else fields
        if "hook" in self.extras:
            self.lift.register_forward_hook(lambda module, inputs, output: 0.5 * output)

    def forward(self, x):
        fields = self.body(x)
        for extra in self.extras:
            fields = self.extra(extra, fields)
        if "several outputs" in self.extras:
            return fields.tensor, fields.tensor.mean((2, 3))
        return fields.tensor

    def extra(self, extra, fields):
        """Return the fields after one of the things that users write between modules."""
        batch, channels, height, width = fields.shape
        if extra == "runs twice":
            return self.again(self.again(fields))
        if extra == "labels":
            return self.by_label(fields)
        if extra == "learned operand":
            return self.gain * fields
        if extra == "sizes":
            scaled = fields.tensor.reshape(batch, channels, -1) / max(height, width)
            return self.kit.enn.GeometricTensor(scaled.view(batch, channels, height, width), fields.type)
        if extra == "functions":
            pooled = torch.nn.functional.avg_pool2d(fields.tensor, 3, 1, 1)
            return self.kit.enn.GeometricTensor(pooled, fields.type)
        return fields

    def body(self, x):
        enn = self.kit.enn
        x = self.lift(enn.GeometricTensor(x, self.in_type))
        for branches, join in zip(self.stages, self.joins, strict=True):
            if join == "residual":
                x = branches[0](x) + x
            elif join == "in place":
                y = branches[0](x)
                y *= 0.5
                x = y
            elif join == "branches":
                x = enn.tensor_directsum([branch(x) for branch in branches])
            else:
                x = branches[0](x)
        return x


def _by_label(kit, fields):
    """Return a module for each kind of field: regular fields get a ReLU, trivial ones an ELU."""
    labels = ["large" if field.size > 1 else "small" for field in fields.representations]
    kinds = {"large": kit.enn.ReLU, "small": kit.enn.ELU}
    parts = [
        (kinds[label](nn_type), label)
        for label in sorted(set(labels))
        for nn_type in [fields.index_select([i for i, other in enumerate(labels) if other == label])]
    ]
    return kit.enn.MultipleModule(fields, labels, parts)


def _fields(kit, space, width):
    """Return regular and trivial fields in turn, so that sizes are mixed and not adjacent."""
    order = [space.regular_repr, space.trivial_repr, space.regular_repr]
    return kit.enn.FieldType(space, [order[position % 3] for position in range(width)])


def _vectors(kit, space):
    group = space.fibergroup
    vector = space.irrep(1, 1) if kit.is_dihedral(space) else space.irrep(1)
    return kit.enn.FieldType(space, [vector, space.trivial_repr, vector]) if group.order() > 2 else None


def _stage(kit, kind, in_type, out_type):
    """Return a sequence of modules from one type to the other."""
    enn, space = kit.enn, in_type.gspace
    vectors = _vectors(kit, space)
    if kind == "norm" and vectors is not None:
        return enn.SequentialModule(
            enn.R2Conv(in_type, vectors, 3, padding=1),
            enn.GNormBatchNorm(vectors),
            enn.NormNonLinearity(vectors),
            enn.R2Conv(vectors, out_type, 1),
        )
    if kind == "gated" and vectors is not None:
        gates = enn.FieldType(space, len(vectors) * [space.trivial_repr])
        return enn.SequentialModule(
            enn.R2Conv(in_type, gates + vectors, 3, padding=1),
            enn.GatedNonLinearity1(gates + vectors),
            enn.R2Conv(vectors, out_type, 1),
        )
    if kind == "pool":
        return enn.SequentialModule(
            enn.PointwiseMaxPool(in_type, 3, 1, 1),
            enn.R2Conv(in_type, out_type, 3, padding=1),
            enn.ELU(out_type),
        )
    if kind == "blur":
        return enn.SequentialModule(
            enn.PointwiseAvgPoolAntialiased(in_type, 0.5, 1),
            enn.R2Conv(in_type, out_type, 1, bias=False),
            enn.PointwiseNonLinearity(out_type, "p_tanh"),
        )
    if kind == "reshuffle":
        order = list(reversed(range(len(in_type))))
        reshuffle = enn.ReshuffleModule(in_type, order)
        return enn.SequentialModule(reshuffle, enn.R2Conv(reshuffle.out_type, out_type, 3, padding=1))
    return enn.SequentialModule(
        enn.R2Conv(in_type, out_type, 3, padding=1, bias=False),
        enn.InnerBatchNorm(out_type),
        enn.ReLU(out_type, inplace=True),
    )


GROUPS = [("C", n) for n in (2, 3, 4, 5, 6, 8, 12, 16)] + [("D", n) for n in (2, 3, 4, 6, 8)]
KINDS = ("pointwise", "norm", "gated", "pool", "blur", "reshuffle")
EXTRAS = ("several outputs", "runs twice", "hook", "labels", "sizes", "functions", "learned operand")
JOINS = ("alone", "residual", "branches", "in place")
WIDTHS = st.integers(1, 3)
PLANS = st.fixed_dictionaries(
    {
        "group": st.sampled_from(GROUPS),
        "widths": st.tuples(WIDTHS),
        "stages": st.lists(
            st.tuples(st.sampled_from(KINDS), st.sampled_from(JOINS), WIDTHS), min_size=1, max_size=3
        ),
        "extras": st.lists(st.sampled_from(EXTRAS), max_size=3, unique=True),
        "seed": st.integers(0, 1000),
    }
)


def check_random_networks(kit, count, plans=PLANS):
    """Draw networks of one library, and check each of them."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=IN_CI,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(plan=plans)
    def check(plan):
        check_network(kit, plan)

    check()


def test_random_networks_of_e2cnn():
    check_random_networks(E2CNN, COUNT)


def test_random_networks_of_escnn():
    # escnn needs minutes for the bases of D_N with N > 4, until it has stored them on the disk.
    quick = PLANS.filter(lambda plan: plan["group"][0] == "C" or plan["group"][1] <= 4)
    check_random_networks(ESCNN, 10 if IN_CI else COUNT, quick if IN_CI else PLANS)


def check_network(kit, plan):
    """Check the export and the equalization of the network of a plan."""
    kind, order = plan["group"]
    space = kit.rotations(order) if kind == "C" else kit.flips_and_rotations(order)
    torch.manual_seed(plan["seed"])
    network = randomise(RandomNetwork(kit, space, plan), plan["seed"])
    image = torch.randn(2, 1, SIZE, SIZE)
    plain = export_model(network, image)
    with torch.no_grad():
        expected, actual = named_tensors(network(image)), named_tensors(plain(image))
    assert list(expected) == list(actual)
    exact = _in_double(plain, image)
    for name, wanted in expected.items():
        # The float32 rounding of a deep network alone is more than 1e-6.
        rounding = 2.0 * float((actual[name] - exact[name]).abs().max())
        difference = float((wanted - actual[name]).abs().max())
        assert difference <= max(TOLERANCES[kit.name] * float(wanted.abs().max()), rounding)
    if kit.rotation_order(space) % 4 == 0:
        # The fields turn as well as the image: the largest channel of each tells how far they do so.
        source, export = (_error(model, image, network) for model in (copy.deepcopy(network), plain))
        assert export <= max(1.05 * source, 1e-12)
    _check_equalization(plain, image, network)


def _check_equalization(plain, image, network):
    has_turns = network.kit.rotation_order(network.space) % 4 == 0
    before, error = _in_double(plain, image), _error(plain, image, network) if has_turns else 0.0
    report = equalize_equivariant(plain, dummy_input=image, high_bias_fold="off")
    for name, after in _in_double(plain, image).items():
        assert float((before[name] - after).abs().max()) <= 1e-5 * float(before[name].abs().max())
    if has_turns:
        # A network without exact weights keeps its error up to the rounding of the scaled weights.
        assert _error(plain, image, network) <= max(2.0 * error, 1e-10)
    names = [name for name, module in plain.named_modules() if is_layer(module)]
    assert sorted(layer.name for layer in report.layers) == sorted(names)
    assert all(layer.reason for layer in report.left_out)


def _in_double(plain, image):
    with torch.no_grad():
        return named_tensors(copy.deepcopy(plain).double()(image.double()))


def _error(model, image, network):
    kit = network.kit

    def transform(output, element):
        if output.dim() == 2:  # pooled fields
            output = output[:, :, None, None]
            return transform(output, element).flatten(1)
        turned = kit.enn.GeometricTensor(element.turn(output), network.fields)
        matrix = network.fields.representation(kit.element(network.space, element.angle))
        return torch.einsum("oi,bihw->bohw", torch.tensor(matrix).to(output), turned.tensor)

    return equivariance_error(model, image, elements=TURNS, transform_output=transform).worst
