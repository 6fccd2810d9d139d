"""The page of modules: what AIMET simulates is tried out here, and the page in `docs/` must say so.

`EQ_AIMET_WRITE_DOCS=1 pytest tests/adapters/test_modules_page.py` writes the page anew.
"""

from __future__ import annotations

import inspect
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from function_table import function_rows
from library_kits import KITS
from module_catalogue import CASES, DISTINCT_CASES, NO_LAYERS, public_classes
from module_equalization import LAYER, YES, try_equalization

from eq_aimet import export_model
from eq_aimet.adapters.escnn.modules import REASONS
from eq_aimet.plain import GroupMaxPool, NormMaxPool, SelectChannels, UnevenMaxPool

# What the names of examples say of functions that do not commute with a positive scale.
FUNCTIONS = ("ELU[", "p_elu", "sigmoid", "tanh", "squash", "softplus", "NonLinearityUniform")


PAGE = Path(__file__).parents[2] / "docs" / "modules.md"

HEAD = """---
orphan: true
---

# Modules of e2cnn and escnn

<!-- Written by tests/adapters/test_modules_page.py; see there how to write it anew. -->

What `export_model` makes of each class of `e2cnn.nn` and `escnn.nn`. One function makes the plain module of
a class that both libraries have, so AIMET gets the examples of such a class once, from e2cnn. "Exports"
means that the plain module computes what the source does in eval mode, to a relative difference of 1e-6, for
each of the examples in each library. "Quantized" means that
AIMET's `QuantizationSimModel` takes the plain module and finds encodings for its output. If the output only
selects values of the input, the output has the encodings of the input. "Equalized through" means that
`equalize_equivariant` moves scales from a 1×1 convolution before the plain module to one behind it, and
that the function stays the same to 1e-5; convolutions take part in it themselves. A "no" names the examples
and the reason that the report gives.

| class | e2cnn | escnn | plain modules | exports | quantized | equalized through | examples |
|---|---|---|---|---|---|---|---|
"""

NOTES = """
## Classes of escnn that are refused

{refused}

## Not layers

{others}

## Functions of torch

A function or a tensor method in `forward` becomes a module that computes the same bits, so that AIMET
quantizes it. If an operand is a parameter, a
buffer or a number, the new module holds it. An operation
without a module keeps its place in the graph, and a `QuantizationPoint` quantizes its output. Operations that
only move numbers (`view`, `permute`, slices, …) keep their place too. The right column shows the modules of
the examples that the tests try.

| function or method | name of the module | modules of the examples |
|---|---|---|
{functions}

- Means and sums over the grid, poolings and bilinear upsampling by a whole factor run in integers on
  onnxruntime. `verify_onnx` names each operator that adds up floats.
- A pooling to a size that does not divide the grid becomes `UnevenAveragePool` or `UnevenMaxPool`. The
  average runs in floats on the device.
- Bilinear upsampling by a whole factor becomes `BilinearUpsampling`. With `align_corners=True` the factor is
  whole if the output size is given and (output size − 1) is a multiple of (input size − 1). Another bilinear
  upsampling stays `Upsample`, which devices compute in floats.

## Notes

- `InnerBatchNorm(track_running_stats=False)` is refused: it takes the statistics of each batch, and no plain
batch norm
  shares them over a field. Train with running statistics.
- `GNormBatchNorm` of fields that are not written in their irreps, regular ones for example, mixes the
channels of a field
  and becomes a 1×1 convolution. Without eq_aimet's mend, e2cnn 0.2.3 can't run it on current
  torch (`view size is not compatible`).
- `GNormBatchNorm` keeps its change of basis in float32, in a float64 model too. Exports of float64 models
  with this norm differ from their source by 1e-9 to 2e-7.
- Norms by label in a `MultipleModule` become one `BatchNorm2d` over all channels, which AIMET folds into the
  convolution in front of it.
- `ConcatenatedNonLinearity` needs `pymanopt` in e2cnn for most fields; the exported module doesn't.
- `R2Diffop` over spaces with reflections is exported as it computes. e2cnn builds its stencils for the
perpendicular
  mirror axis, so the layer carries the actions of the rotations only, and a warning is logged.
- e2cnn calls spaces equal that differ in their mirror axis alone, and reuses the filters of the first for the
second.
  A layer carries only the actions under which its weights are symmetric. Build spaces with only one mirror
  axis in a process, or give `recompute=True`.
- e2cnn's layers share their bases: `model.half()` and `model.double()` reach all networks of the process.
Convert a
  `copy.deepcopy(model)`.
- If you call `torch.onnx.export(…, dynamo=False, dynamic_axes=…)`, give `input_names` and `output_names`:
  torch can't get the names from a traced graph.
- A module that works in place (`ReLU(inplace=True)`, `x += y`) is exported out of place with the same result;
it is refused
  where a view of the changed tensor is used later.
- Batch norms are folded before scales move. Those that can't be folded, behind a concatenation or a sum for
  example, are crossed: their means and biases are scaled too, so that the function stays the same in eval
  mode.
- The channels of gates keep their scale, since they go through a sigmoid. Scales move across the channels
  that the gates multiply.
- A batch norm with `affine=False` gets a weight of ones that is not trained, since AIMET folds no batch
  norm without a weight.
- Whatever is refused can be exported by a plugin: see `eq_aimet_export_module`.
"""


@cache
def export(case):
    network = case.network()
    inputs = case.inputs()
    plain = export_model(network, inputs)
    with torch.no_grad():
        pairs = list(
            zip(_listed(network(*(x.clone() for x in inputs))), _listed(plain(*inputs)), strict=True)
        )
    exact = all(float((a - b).abs().max()) <= 1e-6 * float(a.abs().max()) for a, b in pairs)
    return plain, inputs, exact


def _listed(outputs):
    return list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]


@cache
def is_quantized(case):
    """Return whether the simulation of the plain module has encodings, and stays close to it."""
    from aimet_torch.nn import QuantizationMixin
    from aimet_torch.quantsim import QuantizationSimModel

    plain, inputs, _ = export(case)
    leaves = [module for module in plain.modules() if not list(module.children())]
    sim = QuantizationSimModel(plain, dummy_input=inputs)
    sim.compute_encodings(lambda model: model(*inputs))
    quantized = [module for module in sim.model.modules() if isinstance(module, QuantizationMixin)]
    if len(quantized) != len([module for module in leaves if not isinstance(module, torch.nn.Identity)]):
        return False
    # The values of these are some of their input's; alone in a network they have nothing to quantize.
    selecting = (
        SelectChannels,
        GroupMaxPool,
        NormMaxPool,
        UnevenMaxPool,
        torch.nn.MaxPool2d,
        torch.nn.Identity,
    )
    if not any(module.output_quantizers[0] for module in quantized) and not all(
        isinstance(module, selecting) for module in leaves
    ):
        return False
    quantizers = [
        q for module in quantized for q in (*module.output_quantizers, *module.input_quantizers) if q
    ]
    return all(quantizer.is_initialized() for quantizer in quantizers)


def page():
    """Return the text of the page."""
    rows = []
    for name in sorted(set().union(*map(public_classes, KITS))):
        cases = [case for case in CASES if case.cls == name]
        distinct = [case for case in DISTINCT_CASES if case.cls == name]
        kinds = dict.fromkeys(type(m).__name__ for m in _leaves(export(distinct[0])[0]))
        exports = all(export(case)[2] for case in cases)
        quantized = all(is_quantized(case) for case in distinct)
        libraries = " | ".join("yes" if name in public_classes(kit) else "–" for kit in KITS)
        rows.append(
            f"| `{name}` | {libraries} | {', '.join(f'`{kind}`' for kind in kinds)} | {_mark(exports)} | "
            f"{_mark(quantized)} | {_equalized(distinct)} | {'; '.join(case.variant for case in distinct)} |"
        )
    others = "\n".join(f"- `{name}`: {reason}." for name, reason in NO_LAYERS.items())
    refused = "\n".join(
        f"- {', '.join(f'`{name}`' for name, why in REASONS.items() if why == reason)}: {reason}."
        for reason in dict.fromkeys(REASONS.values())
    )
    return (
        HEAD
        + "\n".join(rows)
        + "\n"
        + NOTES.format(others=others, refused=refused, functions="\n".join(function_rows()))
    )


def _equalized(cases):
    """Return one verdict for all cases, or each verdict with the examples that it holds for."""
    variants = {}
    for case in cases:
        variants.setdefault(try_equalization(case)[0], []).append(case.variant)
    if len(variants) == 1:
        return next(iter(variants))
    return "; ".join(f"{' and '.join(names)}: {verdict}" for verdict, names in variants.items())


def _leaves(plain):
    return [module for name, module in plain.named_modules() if name and not list(module.children())]


def _mark(is_true):
    return "yes" if is_true else "no"


@pytest.mark.parametrize("case", DISTINCT_CASES, ids=str)
def test_aimet_simulates_every_module(case):
    assert is_quantized(case)


@pytest.mark.parametrize("case", DISTINCT_CASES, ids=str)
def test_equalization_crosses_every_module_that_commutes(case):
    verdict, change = try_equalization(case)
    assert change <= 1e-5
    # Functions that are not homogeneous stop a scale; a Fourier transform is a layer on either side of one.
    # A uniform gate is part of the field that it gates, so the field's scale would reach its sigmoid.
    stops = any(name in str(case) for name in FUNCTIONS) and "Fourier" not in str(case)
    assert verdict.startswith("no: ") if stops else verdict in (YES, LAYER)
    assert not stops or verdict.endswith("does not commute with a positive scale")


def test_the_page_is_up_to_date():
    text = page()
    if os.environ.get("EQ_AIMET_WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text, inspect.getdoc(inspect.getmodule(page))


def test_the_page_shows_a_failure(monkeypatch):
    case = CASES[0]
    monkeypatch.setitem(globals(), "CASES", [case])
    monkeypatch.setitem(globals(), "DISTINCT_CASES", [case])
    monkeypatch.setitem(globals(), "public_classes", lambda kit: {case.cls} if kit is case.kit else set())
    monkeypatch.setitem(globals(), "is_quantized", lambda case: False)
    assert f"| `{case.cls}` | yes | – | `Conv2d` | yes | no | is a layer | {case.variant} |" in page()
