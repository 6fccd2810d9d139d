"""AIMET's analyses and its mixed precision run on an export, and the symmetry stays."""

import json

import pytest
import torch
from aimet_torch.common.defs import QuantizationDataType
from aimet_torch.common.utils import CallbackFunc
from aimet_torch.layer_output_utils import LayerOutputUtil, NamingScheme
from aimet_torch.mixed_precision import MixedPrecisionConfigurator, choose_mixed_precision
from aimet_torch.nn import BaseQuantizationMixin
from aimet_torch.quant_analyzer import QuantAnalyzer
from networks import IMAGES, assert_tied, exported, run, simulate

from eq_aimet import correct_bias, equivariance_error, equivariant_hooks, is_symmetric, tie_encodings


def calibrate(model, _):
    with torch.no_grad():
        run(model)


def brightness(model, _):
    with torch.no_grad():
        return float(model(IMAGES).square().mean())


# AIMET draws with a method that bokeh 3.4 deprecates.
@pytest.mark.filterwarnings("ignore::bokeh.util.warnings.BokehDeprecationWarning")
def test_quant_analyzer_runs_and_keeps_the_statistics_inside_the_hooks(tmp_path):
    model = exported("escnn C4", equalized=False)
    with equivariant_hooks():
        analyzer = QuantAnalyzer(model, IMAGES[:1], CallbackFunc(calibrate), CallbackFunc(brightness))
        analyzer.enable_per_layer_mse_loss(list(IMAGES.split(4)), num_batches=2)
        analyzer.analyze(default_param_bw=4, results_dir=str(tmp_path))
    for name in ("per_layer_mse_loss", "per_layer_quant_enabled", "per_layer_quant_disabled"):
        values = json.loads((tmp_path / f"{name}.json").read_text())
        assert {"stem.0", "body.0", "body.3", "classifier"} <= set(values)
    assert is_symmetric(model)
    report = correct_bias(simulate(model))  # needs the statistics of the norms that the analyzer folded
    assert {"body.0", "body.3"} <= {layer.name for layer in report.layers}


def test_the_outputs_of_each_layer_are_saved(tmp_path):
    sim = simulate(exported("escnn C4"))
    util = LayerOutputUtil(
        sim.model, str(tmp_path), naming_scheme=NamingScheme.PYTORCH, dummy_input=IMAGES[:1]
    )
    util.generate_layer_outputs(IMAGES[:2])
    names = json.loads((tmp_path / "layer_output_name_order.json").read_text())["layer_output_names"]
    assert {"stem_0", "body_0", "classifier"} <= set(names)


# AIMET calls its own deprecated property.
@pytest.mark.filterwarnings("ignore:.*Op.output is deprecated:DeprecationWarning")
def test_mixed_precision_by_hand(tmp_path):
    sim = simulate(exported("escnn C4"), bits=8)
    layer = sim.model.get_submodule("body.0")
    configurator = MixedPrecisionConfigurator(sim)
    configurator.set_precision(layer, activation="int16", param={"weight": "int4"})
    configurator.apply(str(tmp_path / "log.txt"))
    sim.compute_encodings(run)
    tie_encodings(sim)
    assert layer.param_quantizers["weight"].bitwidth == 4
    assert sim.model.get_submodule("body.3").param_quantizers["weight"].bitwidth == 8
    assert_tied(sim, layers=3)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0


def test_mixed_precision_by_aimets_search(tmp_path):
    model = exported("escnn C4")
    sim = simulate(model, bits=8)
    expected = model(IMAGES).detach()

    def closeness(candidate, _):
        with torch.no_grad():
            return -float(((candidate(IMAGES) - expected).square().mean() + 1e-9).log10())

    integer = QuantizationDataType.int
    candidates = [((16, integer), (8, integer)), ((8, integer), (8, integer)), ((8, integer), (4, integer))]
    evaluate = CallbackFunc(closeness)
    choose_mixed_precision(
        sim, IMAGES[:1], candidates, evaluate, evaluate, 5.5, str(tmp_path), True, CallbackFunc(calibrate)
    )
    bits = {
        name: module.param_quantizers["weight"].bitwidth
        for name, module in sim.model.named_modules()
        if isinstance(module, BaseQuantizationMixin) and "weight" in module.param_quantizers
    }
    assert 4 in bits.values()
    tie_encodings(sim)
    assert_tied(sim, layers=3)
    assert equivariance_error(sim.model, IMAGES[:3]).worst == 0.0
