"""A MobileNetV2 out of e2cnn, exported and equalized."""

import copy

import pytest
import torch
from block_networks import relative_change, same, weights

from eq_aimet import equalize_equivariant, export_model, hookimpl, plugin_manager
from eq_aimet.models import EquivariantMobileNetV2
from eq_aimet.symmetry import equivariance_error, is_symmetric, stored_blocks

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


@pytest.fixture(scope="module", params=["channel", "field"])
def plain(request):
    torch.manual_seed(0)
    model = EquivariantMobileNetV2(group=4, width=0.25, depthwise=request.param, input_size=33).eval()
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
    assert all(is_symmetric(layer, 0.0) for layer in model.modules())


def test_no_graph_is_built_beside_aimets(plain, monkeypatch):
    """Building the connected graph is what takes the time: once for the batch norms, once for the scaling."""
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
    assert len(built) == 2


def test_a_failure_leaves_the_traced_model_as_it_was(plain):
    class Fails:
        @hookimpl
        def eq_aimet_equalized(self, model, report):
            raise ZeroDivisionError

    model, plugin = copy.deepcopy(plain), Fails()
    plugin_manager().register(plugin)
    try:
        with pytest.raises(ZeroDivisionError):
            equalize_equivariant(model, dummy_input=IMAGE)
    finally:
        plugin_manager().unregister(plugin)
    assert same(weights(model), weights(plain))
    with torch.no_grad():
        assert torch.equal(model(IMAGE), plain(IMAGE))
