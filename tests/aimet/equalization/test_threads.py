"""Several threads that equalize at once get what each of them gets alone."""

import copy
from concurrent.futures import ThreadPoolExecutor

import aimet_torch.cross_layer_equalization as cle
import torch
from block_networks import Conventional, Network, same, weights

from eq_aimet import equalize_equivariant, equivariant_hooks

IMAGE = torch.randn(1, 3, 17, 17, generator=torch.Generator().manual_seed(1))


def equivariant(model):
    report = equalize_equivariant(model, dummy_input=IMAGE, high_bias_fold="off")
    return weights(model), report.summary


def conventional(model):
    with equivariant_hooks(high_bias_fold="all"):
        cle.equalize_model(model, dummy_input=IMAGE)
    return weights(model), ""


def test_two_threads_get_what_each_gets_alone():
    # The models are built before: torch's random numbers are shared by all threads.
    kinds = [(equivariant, Network("field")), (conventional, Conventional())]
    jobs = [(function, copy.deepcopy(model)) for _ in range(4) for function, model in kinds]
    alone = [function(model) for function, model in kinds]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(function, model) for function, model in jobs]
    for position, run in enumerate(runs):
        expected, summary = alone[position % 2]
        found, found_summary = run.result()
        assert same(expected, found)
        assert summary == found_summary


def test_hooks_of_a_with_block_hold_in_their_thread_only():
    def skips_field_wise_layers(_):
        model = Network("field")
        cle.fold_all_batch_norms(model, None, dummy_input=IMAGE)
        return len(cle.CrossLayerScaling.scale_model(model, dummy_input=IMAGE))

    with equivariant_hooks(), ThreadPoolExecutor(1) as pool:
        assert skips_field_wise_layers(0) == 2
        assert pool.submit(skips_field_wise_layers, 0).result() == 0
    with ThreadPoolExecutor(1) as pool:
        hooks = equivariant_hooks()
        hooks.install()
        try:
            assert pool.submit(skips_field_wise_layers, 0).result() == 2
        finally:
            hooks.remove()
