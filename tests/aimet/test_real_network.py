"""A MobileNetV2 out of e2cnn, exported and equalized."""

import copy

import pytest
import torch
from aimet_torch import cross_layer_equalization as cle
from aimet_torch.common.quantsim_config.utils import get_path_for_per_tensor_config
from aimet_torch.quantsim import QuantizationSimModel
from block_networks import relative_change, same, weights

from eq_aimet import (
    PluginError,
    equalize_equivariant,
    equivariant_hooks,
    export_model,
    hookimpl,
    plugin_manager,
    tie_encodings,
)
from eq_aimet.models import EquivariantMobileNetV2
from eq_aimet.symmetry import equivariance_error, is_symmetric
from eq_aimet.symmetry.blocks import stored_blocks

IMAGE = torch.randn(1, 3, 33, 33, generator=torch.Generator().manual_seed(1))


def spread_statistics(model):
    """Give each field a scale of its own, as training does."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            sizes = torch.tensor(stored_blocks(layer).blocks_out)
            for values in (layer.weight, layer.running_var):
                drawn = torch.exp(0.5 * torch.randn(len(sizes), generator=generator))
                values.data.copy_(drawn.repeat_interleave(sizes))
            drawn = torch.randn(len(sizes), generator=generator)
            layer.bias.data.copy_(drawn.repeat_interleave(sizes))


@pytest.fixture(
    scope="module",
    params=[(4, "channel"), (4, "field"), (8, "channel"), (8, "field")],
    ids=lambda values: f"C{values[0]}-{values[1]}",
)
def plain(request):
    torch.manual_seed(0)
    group, depthwise = request.param
    model = EquivariantMobileNetV2(group=group, width=group / 16, depthwise=depthwise, input_size=33).eval()
    plain = export_model(model, IMAGE)
    spread_statistics(plain)
    return plain


def test_all_triplets_are_equalized_and_nothing_is_lost(plain):
    model = copy.deepcopy(plain)
    report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    assert sum(len(cls_set.layers) == 3 for cls_set in report.cls_sets) == 17
    assert report.left_out == ()
    with torch.no_grad():
        assert relative_change(plain(IMAGE), model(IMAGE)) <= 1e-5
    assert float(equivariance_error(model, IMAGE)) <= 1e-10
    assert is_symmetric(model)


def test_the_hooks_give_the_same_numbers_and_scales_are_constant_on_blocks(plain, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        cle.CrossLayerScaling, "scale_cls_sets", noting(cle.CrossLayerScaling.scale_cls_sets, drawn)
    )
    one, other = copy.deepcopy(plain), copy.deepcopy(plain)
    equalize_equivariant(one, dummy_input=IMAGE)
    scaled = [joint for sets, scales in drawn for joint in zip(sets, scales, strict=True)]
    with equivariant_hooks():
        cle.equalize_model(other, dummy_input=IMAGE)
    assert same(weights(one), weights(other))
    assert len(scaled) == 19
    for cls_set, scales in scaled:
        for layer, scale in zip(cls_set, scales if isinstance(scales, tuple) else (scales,), strict=False):
            for block in torch.from_numpy(scale).split(list(stored_blocks(layer).blocks_out)):
                assert block.unique().numel() == 1


def noting(original, drawn):
    def scale_cls_sets(self, cls_sets):
        scales = original(self, cls_sets)
        drawn.append((list(cls_sets), scales))
        return scales

    return scale_cls_sets


@pytest.mark.parametrize("plain", [(4, "channel"), (4, "field")], indirect=True, ids=["channel", "field"])
@pytest.mark.parametrize("config", [None, get_path_for_per_tensor_config()], ids=["default", "per-tensor"])
def test_the_int8_simulation_is_exactly_invariant(plain, config):
    model = copy.deepcopy(plain)
    equalize_equivariant(model, dummy_input=IMAGE)
    sim = QuantizationSimModel(model, dummy_input=IMAGE, config_file=config)
    sim.compute_encodings(lambda model: model(IMAGE))
    tie_encodings(sim)
    assert float(equivariance_error(sim.model, IMAGE)) == 0.0


def test_one_graph_of_aimets_is_built(plain, monkeypatch):
    """AIMET alone builds a second connected graph, for the scaling, which is not needed here."""
    import aimet_torch._base.batch_norm_fold as folding
    import aimet_torch.cross_layer_equalization as cle

    built = []
    for module in (folding, cle):
        original = module.ConnectedGraph

        def count(*arguments, original=original):
            built.append(original)
            return original(*arguments)

        monkeypatch.setattr(module, "ConnectedGraph", count)
    equalize_equivariant(copy.deepcopy(plain), dummy_input=IMAGE)
    assert len(built) == 1


def test_a_failure_leaves_the_traced_model_as_it_was(plain):
    class Fails:
        @hookimpl
        def eq_aimet_equalized(self, model, report):
            raise ZeroDivisionError

    model, plugin = copy.deepcopy(plain), Fails()
    plugin_manager().register(plugin)
    try:
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            equalize_equivariant(model, dummy_input=IMAGE)
    finally:
        plugin_manager().unregister(plugin)
    assert same(weights(model), weights(plain))
    with torch.no_grad():
        assert torch.equal(model(IMAGE), plain(IMAGE))
