import aimet_torch.cross_layer_equalization as cle
import pytest
import torch
from aimet_torch.batch_norm_fold import BatchNormFold, fold_all_batch_norms
from block_networks import Conventional, Network, convolution, same, weights
from torch import nn

from eq_aimet import equivariant_hooks, hookimpl, plugin_manager, tag_blocks
from eq_aimet.errors import EqualizationError, InvalidArgumentError
from eq_aimet.symmetry import is_symmetric

IMAGE = torch.randn(2, 3, 17, 17, generator=torch.Generator().manual_seed(1))


OWNERS = (
    cle,
    cle.GraphSearchUtils,
    cle.CrossLayerScaling,
    cle.HighBiasFold,
    cle.PythonClsImpl,
    cle.PythonHbfImpl,
    BatchNormFold,
)


def attributes():
    """Every attribute of AIMET that could be patched, as the objects in the classes' own dicts."""
    return {(owner, name): value for owner in OWNERS for name, value in vars(owner).items()}


def changed(before):
    after = attributes()
    return {
        name
        for owner, name in before.keys() | after.keys()
        if before.get((owner, name)) is not after.get((owner, name))
    }


PATCHED = {
    "PythonClsImpl",
    "convert_layer_group_to_cls_sets",
    "fold_all_batch_norms",
    "find_layer_groups_to_scale",
    "is_relu_activation_present_in_cls_sets",
    "__init__",  # of GraphSearchUtils
    "scale_model",
    "scale_cls_sets",
    "bias_fold",  # of HighBiasFold and PythonHbfImpl
    "_fold_given_batch_norms",
    "convert_batchnorm_parameters",
}


@pytest.fixture(autouse=True)
def unchanged_aimet():
    before = attributes()
    yield
    assert changed(before) == set()


def test_context_patches_and_restores():
    before = attributes()
    with equivariant_hooks():
        assert changed(before) == PATCHED
    assert changed(before) == set()


def test_exception_restores():
    before = attributes()
    with pytest.raises(ZeroDivisionError), equivariant_hooks():
        raise ZeroDivisionError
    assert changed(before) == set()


def test_install_and_remove_twice():
    before = attributes()
    hooks = equivariant_hooks()
    hooks.install()
    hooks.install()
    assert changed(before) == PATCHED
    hooks.remove()
    assert changed(before) == set()
    hooks.remove()
    assert changed(before) == set()


def test_nested_contexts_restore_only_at_the_end():
    before = attributes()
    hooks = equivariant_hooks()
    with hooks, hooks:
        with equivariant_hooks(high_bias_fold="off"):
            pass
        assert changed(before) == PATCHED
    assert changed(before) == set()


def test_removal_in_another_order():
    before = attributes()
    first, second = equivariant_hooks(), equivariant_hooks()
    first.install()
    second.install()
    first.remove()
    assert changed(before) == PATCHED
    second.remove()
    assert changed(before) == set()


def test_innermost_settings_hold():
    results = []
    for inner in ("all", "off"):
        model = Network("field")
        with equivariant_hooks(high_bias_fold="off"), equivariant_hooks(high_bias_fold=inner):
            cle.equalize_model(model, dummy_input=IMAGE)
        results.append(weights(model))
    assert not same(*results)


def test_mode_is_checked_at_once():
    with pytest.raises(InvalidArgumentError, match="`high_bias_fold`: received 'some'"):
        equivariant_hooks(high_bias_fold="some")


def test_conventional_network_gets_the_same_bits():
    plain, hooked, untouched = Conventional(), Conventional(), Conventional()
    x = torch.randn(1, 3, 9, 9)
    cle.equalize_model(plain, dummy_input=x)
    with equivariant_hooks():
        cle.equalize_model(hooked, dummy_input=x)
    assert same(weights(plain), weights(hooked))
    assert not torch.equal(plain.layers[0].weight, untouched.layers[0].weight)


def test_aimet_alone_breaks_ties_of_c8_and_the_hooks_keep_them():
    alone, hooked = Network("channel", 8), Network("channel", 8)
    cle.equalize_model(alone, dummy_input=IMAGE)
    with equivariant_hooks():
        cle.equalize_model(hooked, dummy_input=IMAGE)
    assert not is_symmetric(alone.residual.body[6], 1e-3)
    assert is_symmetric(hooked.residual.body[6], 0.0)


def test_aimet_alone_skips_fieldwise_depthwise_layers():
    model = Network("field")
    folded = fold_all_batch_norms(model, None, dummy_input=IMAGE)
    alone = cle.CrossLayerScaling.scale_model(model, dummy_input=IMAGE)
    with equivariant_hooks():
        hooked = cle.CrossLayerScaling.scale_model(model, dummy_input=IMAGE)
    assert len(folded) == 7
    assert len(alone) == 0
    assert [len(info.cls_pair_info_list) for info in hooked] == [2, 2]


def test_bn_folded_model():
    whole, steps = Network("field"), Network("field")
    with equivariant_hooks():
        cle.equalize_model(whole, dummy_input=IMAGE)
        folded = fold_all_batch_norms(steps, None, dummy_input=IMAGE)
        cle.equalize_bn_folded_model(steps, None, folded, dummy_input=IMAGE)
    assert same(weights(whole), weights(steps))


@pytest.mark.parametrize(
    "groups", [(1, 1, 1), (1, 8, 1), (1, 2, 1), (1, 4, 1), (2, 1, 1), (1, 1, 2), (1, 2, 2)]
)
def test_pairing_is_aimets(groups):
    """Block-wise layers pair as channel-wise ones do; other groups are as unsupported as to AIMET."""
    layers = [nn.Conv2d(8, 8, 1, groups=group) for group in groups]
    # What AIMET makes of the same chain with a channel-wise layer in the place of the block-wise ones.
    twins = [nn.Conv2d(8, 8, 1, groups=8 if group == 2 else group) for group in groups]
    expected = cle.GraphSearchUtils.convert_layer_group_to_cls_sets(list(twins))
    for layer in layers:
        tag_blocks(layer, 4)
    with equivariant_hooks():
        found = cle.GraphSearchUtils.convert_layer_group_to_cls_sets(list(layers))
    assert [[layers.index(layer) for layer in cls_set] for cls_set in found] == [
        [twins.index(layer) for layer in cls_set] for cls_set in expected
    ]


def test_layers_that_do_not_fit_are_named():
    source, sink = convolution(1, 2), convolution(2, 1)
    sink.eq_aimet_blocks = convolution(3, 1).eq_aimet_blocks
    with (
        equivariant_hooks(),
        pytest.raises(EqualizationError, match=r"The blocks of Conv2d\(4, 8.*do not fit together"),
    ):
        cle.CrossLayerScaling().scale_cls_sets([(source, sink)])


def test_plugin_is_asked_once_with_the_model():
    seen = []

    class Listener:
        @hookimpl
        def eq_aimet_cls_sets(self, model, cls_sets):
            seen.append((model, len(cls_sets)))

    listener, model = Listener(), nn.DataParallel(Network("field"))
    fold_all_batch_norms(model.module, None, dummy_input=IMAGE)
    plugin_manager().register(listener)
    try:
        with equivariant_hooks(), equivariant_hooks():
            cle.CrossLayerScaling.scale_model(model, dummy_input=IMAGE)
            # Without a model at hand the plugins are not asked.
            cle.CrossLayerScaling().scale_cls_sets([])
    finally:
        plugin_manager().unregister(listener)
    assert seen == [(model.module, 2)]
