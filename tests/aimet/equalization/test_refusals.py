"""What `equalize_equivariant` refuses, and that the model is then as it was."""

import copy

import pytest
import torch
from block_networks import Network, convolution, norm, relative_change, same, weights
from torch import nn

from eq_aimet import EqAimetError, equalize_equivariant, hookimpl, plugin_manager
from eq_aimet.errors import EqualizationError, InvalidArgumentError, PluginError
from eq_aimet.snapshot import Snapshot
from eq_aimet.symmetry.blocks import stored_blocks

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


def refused(error, model, text, **arguments):
    before = weights(model)
    arguments = arguments or {"dummy_input": IMAGE}
    with pytest.raises(error, match=text) as caught:
        equalize_equivariant(model, **arguments)
    assert isinstance(caught.value, EqAimetError)
    after = model.state_dict()
    assert all(
        torch.equal(
            before[name],
            after[name],
        )
        or torch.isnan(before[name]).any()
        for name in before
    )


def test_refuses_what_is_no_module():
    with pytest.raises(InvalidArgumentError, match=r"`model`: received str; expected a torch\.nn\.Module"):
        equalize_equivariant("model", dummy_input=IMAGE)


def test_refuses_an_unknown_mode():
    refused(
        InvalidArgumentError,
        Network(),
        "`high_bias_fold`: received 'none'; expected 'unpadded', 'all' or 'off'",
        dummy_input=IMAGE,
        high_bias_fold="none",
    )


def test_refuses_an_equivariant_model():
    model = Network()
    model.last[1] = type("R2Conv", (nn.Identity,), {"__module__": "e2cnn.nn.modules.r2_conv"})()
    refused(EqualizationError, model, r"`last\.1` is a R2Conv of e2cnn.*export_model")


def test_refuses_a_simulation():
    model = Network()
    mixin = type("BaseQuantizationMixin", (), {})
    model.last[2] = type("QuantizedReLU", (nn.ReLU, mixin), {})()
    refused(EqualizationError, model, r"`last\.2` is a QuantizedReLU.*Equalize the model first")


def test_refuses_a_model_without_blocks():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    refused(EqualizationError, model, "No layer of this Sequential carries rotation blocks.*`export_model`")


def test_refuses_blocks_that_do_not_add_up():
    model = Network()
    model.last[0].eq_aimet_blocks = stored_blocks(model.stem[0])
    refused(
        EqualizationError, model, r"The blocks of `last\.0` add up to 3 input channels, but Conv2d.*has 12"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_weights_that_are_not_finite(value):
    model = Network()
    with torch.no_grad():
        model.last[0].weight[0, 0] = value
    refused(EqualizationError, model, r"`last\.0\.weight` is not finite everywhere")


def test_refuses_a_batch_norm_without_statistics():
    model = Network()
    model.last[1] = nn.BatchNorm2d(16, track_running_stats=False)
    refused(EqualizationError, model, r"The batch norm `last\.1` has no running statistics")


def test_refuses_a_parametrized_weight():
    model = Network()
    torch.nn.utils.parametrizations.weight_norm(model.last[0])
    refused(EqualizationError, model, r"The weight of `last\.0` is computed from other parameters")


def test_refuses_a_model_without_values():
    model = Network().to("meta")
    with pytest.raises(EqualizationError, match=r"on the meta device and has no values"):
        equalize_equivariant(model, dummy_input=IMAGE)


class FoldedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.twice, self.first, self.second = convolution(2, 2), norm(2), norm(2)

    def forward(self, x):
        return self.second(self.twice(self.first(self.twice(x))))


def test_a_batch_norm_after_a_layer_that_runs_more_often_stays():
    model, x = FoldedTwice().eval(), torch.randn(1, 8, 5, 5)
    before = model(x).detach()
    report = equalize_equivariant(model, dummy_input=x)
    assert [(norm.name, norm.folded_into) for norm in report.norms] == [("first", ""), ("second", "")]
    assert report.norms[1].reason == "`twice` and `second` run 2 and 1 times in one forward pass"
    with torch.no_grad():
        assert relative_change(before, model(x)) <= 1e-6


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"high_bias_fold": "off"}, "`dummy_input`: received None; expected an input of the model"),
        ({"dummy_input": IMAGE.numpy()}, "`dummy_input`: received ndarray; expected a tensor"),
        ({"dummy_input": IMAGE[:0]}, "with at least one value each"),
        ({"dummy_input": IMAGE.bfloat16()}, r"weights are of torch.float32, and its forward pass failed"),
        ({"dummy_input": IMAGE.half()}, r"of torch.float16 on cpu.*weights are of torch.float32"),
        (
            {"dummy_input": {"image": IMAGE}},
            r"`dummy_input`: received a dictionary.*inputs of `forward\(x\)`",
        ),
        ({"input_shapes": [(1, 3, 17, 17)] * 2}, r"`input_shapes`.*too many positional arguments"),
        ({"input_shapes": "17"}, "`input_shapes`: received '17'; expected the shape of the input"),
        ({"input_shapes": []}, "`input_shapes`: received"),
        (
            {"dummy_input": torch.randn(2, 5, 17, 17)},
            r"received a tensor \(2, 5, 17, 17\) of torch.float32 on cpu",
        ),
        ({"dummy_input": IMAGE.double()}, r"of torch.float64 on cpu.*forward pass failed: RuntimeError"),
        ({"dummy_input": IMAGE.to("meta")}, r"on meta; expected a tensor"),
        ({"dummy_input": (IMAGE, IMAGE)}, r"received tuple of a tensor"),
        ({"input_shapes": (1, 4, 17, 17)}, r"`input_shapes`: received tuple of a tensor \(1, 4, 17, 17\)"),
    ],
)
def test_refuses_an_input_that_does_not_fit(arguments, text):
    refused(InvalidArgumentError, Network(), text, **arguments)


# Failures midway.


class FailsAtBlocks:
    """Fails after the checks, when the model is being traced."""

    def __init__(self):
        self.calls = 0

    @hookimpl
    def eq_aimet_layer_blocks(self, module):
        self.calls += isinstance(module, nn.Linear)
        if self.calls > 1:
            raise ZeroDivisionError("plugin")


class FailsAtSets:
    @hookimpl
    def eq_aimet_cls_sets(self, model, cls_sets):
        raise ZeroDivisionError("plugin")


class FailsAtTheEnd:
    @hookimpl
    def eq_aimet_equalized(self, model, report):
        raise ZeroDivisionError("plugin")


class Interrupts:
    @hookimpl
    def eq_aimet_equalized(self, model, report):
        raise KeyboardInterrupt


class AnswersSets:
    @hookimpl
    def eq_aimet_cls_sets(self, model, cls_sets):
        return cls_sets[1:]


class AnswersAtTheEnd:
    @hookimpl
    def eq_aimet_equalized(self, model, report):
        return 3


FAILS = r"`{}` of the plugin `{}` fails.* at .*test_refusals\.py, line .*ZeroDivisionError: plugin"
ANSWERS = "`{}` of the plugin `{}` returned a {}; expected None"


@pytest.mark.parametrize(
    ("plugin", "error", "text"),
    [
        (FailsAtBlocks(), PluginError, FAILS.format("eq_aimet_layer_blocks", "FailsAtBlocks")),
        (FailsAtSets(), PluginError, FAILS.format("eq_aimet_cls_sets", "FailsAtSets")),
        (FailsAtTheEnd(), PluginError, FAILS.format("eq_aimet_equalized", "FailsAtTheEnd")),
        (AnswersSets(), PluginError, ANSWERS.format("eq_aimet_cls_sets", "AnswersSets", "list")),
        (AnswersAtTheEnd(), PluginError, ANSWERS.format("eq_aimet_equalized", "AnswersAtTheEnd", "int")),
        (Interrupts(), KeyboardInterrupt, "^$"),
    ],
    ids=["blocks", "sets", "end", "sets-answer", "end-answer", "interrupt"],
)
def test_a_failure_midway_leaves_the_model_as_it_was(plugin, error, text):
    model = Network("field").train()
    model.last.add_module("unfolded", norm(4))  # a batch norm after ReLU, which AIMET rewrites in place
    before, state = copy.deepcopy(model), weights(model)
    modules = list(model.named_modules())
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    plugin_manager().register(plugin)
    try:
        with pytest.raises(error, match=text) as caught:
            equalize_equivariant(model, dummy_input=IMAGE)
        if "fails" in text:
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
    finally:
        plugin_manager().unregister(plugin)
    assert list(model.named_modules()) == modules
    now = dict(model.named_parameters()) | dict(model.named_buffers())
    assert now.keys() == tensors.keys()
    assert all(now[name] is tensors[name] for name in now)
    assert {name: tensor.data_ptr() for name, tensor in now.items()} == pointers
    assert same(weights(model), state)
    for (_, module), (_, twin) in zip(model.named_modules(), before.named_modules(), strict=True):
        assert vars(module).keys() == vars(twin).keys()
        assert module.training == twin.training
        assert len(module._forward_hooks) == 0
    assert model.last.unfolded.track_running_stats
    # It is still whole: the same call without the plugin goes through.
    equalize_equivariant(model, dummy_input=IMAGE)
    equalize_equivariant(before, dummy_input=IMAGE)
    assert same(weights(model), weights(before))


def test_a_snapshot_brings_back_storage_that_was_exchanged():
    """As AIMET does on a GPU, where it moves the model to the CPU and back."""
    model = Network()
    snapshot, pointer, state = Snapshot(model), model.stem[0].weight.data_ptr(), weights(model)
    model.stem[0].weight.data = torch.zeros_like(model.stem[0].weight)
    snapshot.restore()
    assert model.stem[0].weight.data_ptr() == pointer
    assert same(weights(model), state)
